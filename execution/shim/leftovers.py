"""Ending what nobody speaks with any more: a shim that lets nobody in, and the tree of one that was killed itself."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from execution.ports import ProcessFacts
from execution.shim import processes
from execution.shim.keys import place_of_doors

MARKER = "FLEET_RUN"  # names the run in the environment of everything it starts, so that leftovers can be found
_PATIENCE_SECONDS = 2.0  # a shim that ends its tree is not disturbed
_GONE_SECONDS = 5.0


def end(process: ProcessFacts) -> bool:
    """End the shim with this number and everything that carries its marker; return whether all of it is proven gone."""
    if process.boot_id != processes.boot_id():
        return False
    if not _ended_within(process, _PATIENCE_SECONDS):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)
    return _ended_within(process, _GONE_SECONDS) and hunt(process.marker, _GONE_SECONDS)


def _ended_within(process: ProcessFacts, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while alive := processes.is_alive(process.pid, process.started_at):
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    return not alive


def hunt(marker: str, seconds: float) -> bool:
    """Kill whatever carries this marker until nothing does; False when something is left after so many seconds."""
    until = time.monotonic() + seconds
    while left := processes.marked(MARKER, marker) if marker else []:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    if marker:
        (place_of_doors() / marker).unlink(missing_ok=True)  # a shim that was killed could not
    return True
