"""How much memory a run may have: the kernel holds it in a cgroup where one is delegated to Fleet, else its tree is weighed.

A cgroup is exact, a weighing comes every two seconds and counts what processes share more than once. The shim stays outside: it has
to outlive what it watches over.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import structlog
from django.conf import settings

from execution.engine.halts import Halt
from execution.ports import ProcessFacts
from execution.shim import processes
from execution.states import Cause, OutcomeClass

log = structlog.get_logger(__name__)
_MEGABYTE = 1024 * 1024


class Memory:
    """The memory of one attempt: `enclose` before money flows, `exceeded` on a clock and at the end, `let_go` when all is over."""

    def __init__(self, process: ProcessFacts | None, *, megabytes: int) -> None:
        self._process, self._megabytes = process, megabytes
        self._cage: Path | None = None
        self._killed_before = 0

    def enclose(self) -> None:
        """Put what runs into a cgroup of its own, if one can be made; what it starts from now on is in it too."""
        root = settings.FLEET_CGROUP
        if not root or self._process is None or not self._megabytes:
            return
        cage = Path(root) / f"run-{self._process.pid}-{self._process.started_at:.2f}"
        _sweep_out(Path(root))
        try:
            cage.mkdir(exist_ok=True)
            (cage / "memory.max").write_text(str(self._megabytes * _MEGABYTE))
            (cage / "memory.oom.group").write_text("1")
            for child in psutil.Process(self._process.pid).children(recursive=True):
                (cage / "cgroup.procs").write_text(str(child.pid))
            self._killed_before = _kills(cage)
        except (OSError, psutil.Error) as error:
            log.warning("memory.not_enclosed", cgroup=str(cage), error=str(error))
            return
        self._cage = cage

    def exceeded(self) -> Halt | None:
        """Return the halt when it has, or was killed for having, more than it may."""
        if self._process is None or not self._megabytes:
            return None
        if self._cage is not None:
            return self._halt() if _kills(self._cage) > self._killed_before else None
        return self._halt() if processes.megabytes(self._process) > self._megabytes else None

    def let_go(self) -> None:
        """Remove the cgroup once nothing is left in it; that of a process that stays is used again by its next turn."""
        if self._cage is not None:
            with contextlib.suppress(OSError):
                self._cage.rmdir()

    def _halt(self) -> Halt:
        return Halt(
            OutcomeClass.LIMIT,
            f"It used more than the {self._megabytes} MB of memory that this bot may use in one turn, so it was stopped. "
            "Ask for less at once, or raise the bot's limit of memory.",
            at_once=True,
            cause=Cause.MEMORY,
        )


def _sweep_out(root: Path) -> None:
    """Remove the groups of runs that are over: one of a process that stayed warm outlives its turn."""
    for stale in root.glob("run-*"):
        with contextlib.suppress(OSError):  # somebody is in it
            stale.rmdir()


def _kills(cage: Path) -> int:
    """Return how many processes the kernel has killed in this cgroup."""
    try:
        counts = dict(line.split() for line in (cage / "memory.events").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))
