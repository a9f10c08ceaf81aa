"""What the proxy writes down for workers: destinations that it refused, and that a bot's provider cannot be reached."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time

from .reaching import Unreachable
from .rules import Refusal

MOST_REFUSALS = 20  # told of per sandbox: a bot that tries every host of the world fills no disk
LARGEST_LOG = 64 * 1024


class RefusalLog:
    """Appends refusals to the file that workers read; every destination once, and not without end."""

    def __init__(self, path: str, bot: str) -> None:
        self._path, self._bot = path, bot
        self._told: set[tuple[str, int]] = set()

    def reached(self, host: str, port: int) -> None:
        """Nothing to write."""

    def failed(self, trouble: Unreachable) -> None:
        """Nothing to write: that is no rule of ours."""

    def refused(self, refusal: Refusal) -> None:
        """Write one line, unless it was written before."""
        place = (refusal.host, refusal.port)
        if place in self._told or len(self._told) >= MOST_REFUSALS:
            return
        self._told.add(place)
        told = {
            "bot": self._bot,
            "host": refusal.host[:253],
            "port": refusal.port,
            "why": refusal.why,
            "at": time.time(),
        }
        with contextlib.suppress(OSError):
            self._append(json.dumps(told) + "\n")

    def _append(self, line: str) -> None:
        with open(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:  # noqa: PTH123 - mode
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size < LARGEST_LOG:
                file.write(line)


class TroubleNote:
    """Keeps a file there for as long as the bot's provider cannot be reached, which says why; reaching it removes the file.

    A refusal counts only until the provider was reached for the first time: later ones are a tool's, which may ask for anything.
    """

    def __init__(self, path: str, host: str, port: int) -> None:
        self._path, self._place = path, (host, port)
        self._was_reached = False
        self._noted = ""

    def reached(self, host: str, port: int) -> None:
        """Forget the trouble when this is the provider."""
        if (host, port) != self._place:
            return
        self._was_reached = True
        if self._noted:
            self._noted = ""
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - no pathlib in the proxy

    def failed(self, trouble: Unreachable) -> None:
        """Note that the provider could not be reached, if that is what it was."""
        if (trouble.host, trouble.port) == self._place:
            self._note(trouble.host, trouble.port, trouble.kind, trouble.why)

    def refused(self, refusal: Refusal) -> None:
        """Note what we did not let the CLI reach, if it reached nothing yet."""
        if not self._was_reached:
            self._note(refusal.host[:253], refusal.port, "policy", refusal.why)

    def _note(self, host: str, port: int, kind: str, why: str) -> None:
        told = json.dumps({"host": host, "port": port, "kind": kind, "why": why})
        if not self._path or told == self._noted:
            return
        half = f"{self._path}.new"
        with contextlib.suppress(OSError):
            with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 - mode
                file.write(told)
            os.replace(half, self._path)  # noqa: PTH105 - no pathlib in the proxy
            self._noted = told
