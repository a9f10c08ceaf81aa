"""What is left of a server that was killed: its children, which go by themselves, and files that would keep the next one from starting.

Also the program that supervisor starts a server with: `leftovers.py NAME PLACE LOCK FILE ... -- COMMAND ...` clears away, then is the
command. It is run by its path and knows only psutil, so that a start waits no longer than for an interpreter.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LEAVE_SECONDS = 10.0  # what the children of a killed server get to notice; one that computes does not notice before it has its answer
STOP_SECONDS = 15.0
KILL_SECONDS = 5.0


class StillThere(RuntimeError):
    """Processes of an earlier start do not end; the text is the sentence for the person."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """How the processes of one server are recognised: they are called `name` and stand in `place`.

    The first line of `lock`, while there is such a file, is the number of the one that started the others; a server without children
    has no lock. `files` would keep the next one from starting, or be read by it.
    """

    name: str
    place: Path
    lock: Path | None = None
    files: tuple[Path, ...] = ()

    def end(self, *signals: signal.Signals) -> None:
        """Stop the server in order if it lives, the next signal after `STOP_SECONDS`, and clear away. Raises StillThere."""
        found = self.processes()
        head = self._head(found)
        if head is not None:
            send(found, signal.SIGCONT)  # a frozen one hears nothing
            _stop(head, signals)
            end_all(found, STOP_SECONDS, of=self.name)
        self.clear()

    def clear(self) -> None:
        """Let the children of a dead server go, end those that do not, and forget its files; nothing while the server lives.

        As long as one of them has the shared memory, no other server may write to the same data. Raises StillThere.
        """
        found = self.processes()
        if self._head(found):
            return
        end_all(found, LEAVE_SECONDS, of=self.name)
        for file in (self.lock, *self.files) if self.lock else self.files:
            file.unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of this server."""
        place, found = str(self.place.resolve()), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == self.name and process.cwd() == place and _lives(process):
                    found.append(process)
        return found

    def _head(self, found: Iterable[psutil.Process]) -> psutil.Process | None:
        """Return the server itself, if it lives."""
        return next((process for process in found if self.lock is None or process.pid == self._number()), None)

    def _number(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self.lock.read_text().split("\n", 1)[0]) if self.lock else 0
        return 0

    def clearing(self, command: Sequence[str]) -> list[str]:
        """Return the command that clears away and then is `command`."""
        files = [str(file) for file in self.files]
        told = [self.name, str(self.place), str(self.lock or ""), *files]
        return [sys.executable, "-P", __file__, *told, "--", *command]


def end_all(processes: Iterable[psutil.Process], patience: float, *, of: str) -> None:
    """Wait until they have gone, kill what has not by then, and raise StillThere for what outlives that."""
    late = left(processes, patience)
    send(late, signal.SIGKILL)
    stuck = left(late, KILL_SECONDS)
    if stuck:
        numbers = ", ".join(str(process.pid) for process in stuck)
        raise StillThere(
            f"An earlier {of} is still there (process {numbers}) and does not end even when it is killed, so another one must not start. "
            "That happens when a disk does not answer. See to the disk or restart the machine, then start again."
        )


def _stop(head: psutil.Process, signals: Iterable[signal.Signals]) -> None:
    for number in signals:
        send([head], number)
        if not left([head], STOP_SECONDS):
            return


def left(processes: Iterable[psutil.Process], patience: float) -> list[psutil.Process]:
    """Return which of them still live after so many seconds; at once when none does."""
    deadline = time.monotonic() + patience
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those that are still the processes we found."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _lives(process: psutil.Process) -> bool:
    """Return whether it is more than an entry that nobody has collected."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main(arguments: list[str]) -> None:
    """Clear away, then become the command."""
    end = arguments.index("--")
    name, place, lock, *files = arguments[:end]
    Leftovers(name, Path(place), Path(lock) if lock else None, tuple(map(Path, files))).clear()
    os.execv(arguments[end + 1], arguments[end + 1 :])  # noqa: S606 - what our own configuration says


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StillThere as failure:
        sys.exit(str(failure))
