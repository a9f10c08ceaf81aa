"""What a provider promises that declares `steers`, beside what every provider does (`execution.ports`)."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Protocol

from execution.ports import ExecutionProvider, Run, UserText


class Steered(Enum):
    """What a provider said to a message for its running turn."""

    TAKEN = "taken"  # confirmed: the turn has it
    REFUSED = "refused"  # certainly not part of it
    UNKNOWN = "unknown"  # no answer in time: it may be


class Steerable(Run, Protocol):
    """A run whose provider steers (`Capabilities.steers`)."""

    def steer(self, text: UserText) -> Steered:
        """Hand a message to the running turn and return what its provider answers, within seconds. Any thread; does not raise."""
        ...


class Remembering(ExecutionProvider, Protocol):
    """A provider that steers: it can be asked later what a turn had, when nobody heard the answer."""

    def has_heard(self, home: Path, session_id: str, uuid: str) -> bool | None:
        """Return whether this message is part of what was said in the session, by its notes on disk; None when there are none."""
        ...
