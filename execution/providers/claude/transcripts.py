"""What the CLI has written down of a turn, in its own transcript of the session: all that is left when nobody heard its answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from execution.ports import Recovered, Usage
from execution.providers.claude.counting import Counting
from execution.providers.claude.subagents import Subagents, entry_of
from execution.sandbox import open_plain

TRANSCRIPTS = "projects"  # all that a CLI's next process needs of its configuration directory
_BETWEEN_TEXTS = "\n\n"
_ENDS = ("end_turn", "stop_sequence")


def find(configuration: Path, session_id: str) -> Path | None:
    """Return where a session's transcript lies, whatever workspace it was in; None when this machine has none."""
    return next((configuration / TRANSCRIPTS).glob(f"*/{session_id}.jsonl"), None)


def recover(configuration: Path, session_id: str, uuid: str) -> Recovered | None:
    """Return what was written after the prompt with this uuid; None when the CLI never took it down.

    Raises OSError when it is no file that a CLI writes.
    """
    path = find(configuration, session_id)
    if path is None:
        return None
    entries = _entries(path)
    prompt = next((entry for entry in entries if entry.get("uuid") == uuid), None)
    if prompt is None:
        return None
    said = [entry for entry in entries if entry.get("type") == "assistant"]
    return _recovered(said, _said_by_subagents(configuration, path, since=str(prompt.get("timestamp") or "")))


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with open_plain(path) as file:
        yield from (entry for entry in map(entry_of, file) if entry is not None)


def _said_by_subagents(configuration: Path, path: Path, *, since: str) -> list[dict[str, Any]]:
    """Return the messages of the turn's subagents; those of earlier turns are older than its prompt. One clock has written both."""
    session = path.relative_to(configuration).with_suffix("").as_posix()
    said = (entry for _, entry in Subagents(configuration, session, ends={}).said())
    return [entry for entry in said if str(entry.get("timestamp") or "") >= since]


def _recovered(said: list[dict[str, Any]], beside: list[dict[str, Any]]) -> Recovered:
    own = [entry for entry in said if not entry.get("isSidechain") and not entry.get("isApiErrorMessage")]
    messages = [entry.get("message") or {} for entry in own]
    blocks = [block for message in messages for block in message.get("content") or []]
    texts = [str(block["text"]) for block in blocks if block.get("type") == "text"]
    is_whole = bool(messages) and messages[-1].get("stop_reason") in _ENDS
    return Recovered(_BETWEEN_TEXTS.join(texts), _used([*said, *beside]), is_whole)


def _used(said: list[dict[str, Any]]) -> tuple[Usage, ...]:
    """Return what each message used; one that is written in several lines is one."""
    counting, used = Counting(), dict[str, Usage]()
    for entry in said:
        usage = counting.of_line(entry)
        if usage is not None:
            used[usage.message_id] = usage
    return tuple(used.values())
