"""Which thread of Codex belongs to a session of ours, and what that thread had used: Codex chooses its ids itself."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

THREADS = "fleet-threads"  # the directory below CODEX_HOME


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread; `used` is its running total by Codex's own names, as far as it was reported."""

    id: str
    used: Mapping[str, int] = field(default_factory=dict)


class Threads:
    """One small file per session below CODEX_HOME, where no sandboxed tool may write."""

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration
        self._directory = configuration / THREADS

    def find(self, session_id: str) -> Thread | None:
        """Return the session's thread, if this machine still has what was said in it."""
        try:
            told = json.loads(self._path(session_id).read_text())
            thread = Thread(str(told["id"]), {str(unit): int(number) for unit, number in told["used"].items()})
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        return thread if self._transcript_of(thread.id) else None

    def transcript(self, session_id: str) -> Path | None:
        """Return the file with what was said in the session's thread."""
        thread = self.find(session_id)
        return self._transcript_of(thread.id) if thread else None

    def keep(self, session_id: str, thread: Thread) -> None:
        """Remember the session's thread and what it has used."""
        self._directory.mkdir(exist_ok=True, mode=0o700)
        path = self._path(session_id)
        draft = path.with_suffix(f".{secrets.token_hex(8)}")
        draft.write_text(json.dumps({"id": thread.id, "used": dict(thread.used)}))
        draft.replace(path)

    def _path(self, session_id: str) -> Path:
        return self._directory / f"{session_id}.json"

    def has_message(self, session_id: str, uuid: str) -> bool | None:
        """Return whether a message that we gave this name is in the session's transcript; None when there is no transcript."""
        thread = self.find(session_id)
        if thread is None:
            return None
        return any(_names(line, uuid) for path in self._transcripts(thread.id) for line in _lines_of(path))

    def _transcript_of(self, thread_id: str) -> Path | None:
        return next(self._transcripts(thread_id), None)

    def _transcripts(self, thread_id: str) -> Iterator[Path]:
        return (self._configuration / "sessions").glob(f"**/rollout-*-{thread_id}.jsonl")


def _lines_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from lines


def _names(line: str, uuid: str) -> bool:
    """Return whether a transcript's line is the message of this name; its text may hold anything, and the last line be cut off."""
    if uuid not in line:
        return False
    try:
        item = json.loads(line)["payload"]["item"]
        return bool(item["client_id"] == uuid)
    except (ValueError, KeyError, TypeError):
        return False
