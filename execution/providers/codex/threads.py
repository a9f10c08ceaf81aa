"""Which thread of Codex belongs to a session of ours, and what that thread had used: Codex chooses its ids itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from execution.sandbox import open_plain
from fleet.kernel import distrusted

THREADS = "fleet-threads"  # the directories below CODEX_HOME
SESSIONS = "sessions"
LARGEST = 1024**2  # bytes of such a file; a name for each of a session's branches and a few numbers are in it


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread; `used` is its running total by Codex's own names, as far as it was reported.

    A branch begins with the total of the thread that it left (`base`), which its own transcript does not tell, and Codex reads what was
    said before from the transcripts of all that it came from (`left`, their ids).
    """

    id: str
    used: Mapping[str, int] = field(default_factory=dict)
    base: Mapping[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def branch(self, thread_id: str) -> Thread:
        """Return a thread that branches off this one now."""
        return Thread(thread_id, self.used, self.used, (self.id, *self.left))

    def kept(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"id": self.id, "used": dict(self.used), "base": dict(self.base), "left": list(self.left)}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Thread:
        """Return what was kept, also by a release that knew of no branches. Raises KeyError, ValueError, TypeError, AttributeError."""
        left = tuple(str(thread) for thread in kept.get("left", ()))
        return cls(str(kept["id"]), _numbers(kept["used"]), _numbers(kept.get("base", {})), left)


class Threads:
    """One small file per session below CODEX_HOME, where no tool of Codex may write; those of the bot's other providers may."""

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration

    def find(self, session_id: str) -> Thread | None:
        """Return the session's thread, if this machine still has what was said in it."""
        try:
            with distrusted.opened(self._configuration) as root:
                kept = distrusted.read(root, _file(session_id), at_most=LARGEST)
            thread = Thread.of(json.loads(kept or b""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return thread if all(self.transcript_of(one) for one in (thread.id, *thread.left)) else None

    def keep(self, session_id: str, thread: Thread) -> None:
        """Remember the session's thread and what it has used."""
        content = json.dumps(thread.kept()).encode()
        with distrusted.opened(self._configuration) as root:
            distrusted.replace(root, _file(session_id), content, private=True)

    def has_message(self, session_id: str, uuid: str) -> bool | None:
        """Return whether a message that we gave this name is in the session's transcript; None when there is no transcript."""
        thread = self.find(session_id)
        if thread is None:
            return None
        return any(_names(line, uuid) for path in self._transcripts(thread.id) for line in _lines_of(path))

    def transcript_of(self, thread_id: str) -> Path | None:
        """Return the file with what was said in a thread; of a branch, with what was said in it alone."""
        return next(self._transcripts(thread_id), None)

    def _transcripts(self, thread_id: str) -> Iterator[Path]:
        return (self._configuration / SESSIONS).glob(f"**/rollout-*-{thread_id}.jsonl")


def _file(session_id: str) -> str:
    return f"{THREADS}/{session_id}.json"


def _numbers(told: Mapping[str, int]) -> dict[str, int]:
    return {str(unit): int(number) for unit, number in told.items()}


def _lines_of(path: Path) -> Iterator[str]:
    with open_plain(path) as lines:
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
