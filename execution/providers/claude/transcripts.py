"""What the CLI has written down of a turn, in its own transcript of the session: all that is left when nobody heard its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from execution.ports import Recovered, Usage
from execution.providers.claude.counting import Counting
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
    entries = _after(_entries(path), uuid)
    return None if entries is None else _recovered(entries)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with open_plain(path) as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line of one that was killed while it wrote
            if isinstance(entry, dict):
                yield entry


def _after(entries: Iterator[dict[str, Any]], uuid: str) -> list[dict[str, Any]] | None:
    for entry in entries:
        if entry.get("uuid") == uuid:
            return [later for later in entries if later.get("type") == "assistant"]
    return None


def _recovered(entries: list[dict[str, Any]]) -> Recovered:
    counting, usages, texts, reason = Counting(), dict[str, Usage](), list[str](), ""
    for entry in entries:
        message = entry.get("message") or {}
        usage = counting.of_message(str(message.get("id", "")), str(message.get("model", "")), message.get("usage"))
        if usage is not None:
            usages[usage.message_id] = usage
        if not entry.get("isSidechain") and not entry.get("isApiErrorMessage"):
            texts += [str(block["text"]) for block in message.get("content") or [] if block.get("type") == "text"]
            reason = str(message.get("stop_reason") or "")
    return Recovered(_BETWEEN_TEXTS.join(texts), tuple(usages.values()), is_whole=reason in _ENDS)
