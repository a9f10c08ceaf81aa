"""Facts about processes of this machine, from /proc. A pid alone is never trusted: numbers are reused."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from execution.ports import ProcessFacts

_TICKS = os.sysconf("SC_CLK_TCK")


@cache
def host() -> str:
    """Return this machine's name."""
    return socket.gethostname()


@cache
def boot_id() -> str:
    """Return the id of this boot and PID namespace; pids and start times mean nothing in another one."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"


def facts(pid: int, marker: str = "") -> ProcessFacts:
    """Return what recognises a living process later, and by the marker what it starts.

    Raises ProcessLookupError when there is none of that number.
    """
    started_at = _started_at(pid)
    if started_at is None:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(pid))
    return ProcessFacts(pid, started_at, host(), boot_id(), marker)


def of(row: Any) -> ProcessFacts:
    """Return the process that a row has written down."""
    return ProcessFacts(row.pid, row.pid_started_at, row.host, row.boot_id, row.marker)


def is_alive(pid: int, started_at: float) -> bool:
    """Return whether the process with this number and start time still runs here; a zombie does not."""
    return _started_at(pid) == started_at


def proven_gone(boot: str, pid: int | None, started_at: float | None) -> bool:
    """Return whether a stored process is certainly over; False also when that cannot be seen from here."""
    return boot == boot_id() and pid is not None and started_at is not None and not is_alive(pid, started_at)


def megabytes(process: ProcessFacts | None) -> float:
    """Return what a process and everything below it has in memory; 0 when it is gone, or was never one."""
    if process is None or not is_alive(process.pid, process.started_at):
        return 0.0
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        for each in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
    return total / 1e6


def _started_at(pid: int) -> float | None:
    """Return the start of a process in seconds after boot (proc(5), stat field 22); None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19]) / _TICKS


def marked(name: str, value: str) -> list[int]:
    """Return the living processes of ours whose environment has this variable with this value."""
    wanted = f"{name}={value}".encode()
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and wanted in _environment(path)]


def _environment(process: Path) -> list[bytes]:
    try:
        if _started_at(int(process.name)) is None:
            return []
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
