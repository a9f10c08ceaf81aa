"""What a sandbox looks like, as data, and as bubblewrap's arguments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from execution.sandbox import configuration

BWRAP = "/usr/bin/bwrap"
ORDINARY = 1000  # a user's number that is not root's
TMP_BYTES = 1024**3
RUN_BYTES = 16 * 1024**2
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")


@dataclass(frozen=True, slots=True)
class Profile:
    """`writable` and `readable` are paths that keep their names inside; `hidden` ones are empty there, whatever they lie in. `fresh` ones
    are another directory there, as (which, where), that can be written and goes with the sandbox; `empty` ones begin empty, are kept in
    memory and go with it too. `blank` are files as (which, where), that nobody can write there. What runs there begins in `begins`, or
    in the workspace.

    `nests`: the CLI builds sandboxes of its own inside, so it may have namespaces of its own.
    """

    workspace: Path
    writable: tuple[Path, ...]
    readable: tuple[Path, ...]
    hidden: tuple[Path, ...]
    nests: bool = False
    fresh: tuple[tuple[Path, Path], ...] = ()
    empty: tuple[Path, ...] = ()
    blank: tuple[tuple[Path, Path], ...] = ()
    begins: Path | None = None

    def argv(self) -> list[str]:
        """Return the command that whatever follows runs in."""
        etc = ("--ro-bind", str(configuration.directory()), "/etc")
        rest = ("--chdir", str(self.begins or self.workspace), "--")
        return [BWRAP, *_walls(self.nests), *_system(), *etc, *self._places(), *rest]

    def _places(self) -> Iterator[str]:
        """Yield every place after those that it lies in: whatever is mounted first would be covered."""
        seen = [*(Path(place) for place in _SYSTEM), *self.readable]
        covered = [path for path in self.hidden if any(path != place and _within(path, place) for place in seen)]
        found: list[tuple[Path, tuple[str, ...]]] = [
            *((path, _empty(str(path), RUN_BYTES)) for path in covered),
            *((path, ("--ro-bind-try", str(path), str(path))) for path in self.readable),
            *((path, ("--bind", str(path), str(path))) for path in (*self.writable, self.workspace)),
            *((path, ("--bind", str(another), str(path))) for another, path in self.fresh),
            *((path, _empty(str(path), TMP_BYTES)) for path in self.empty),
            *((path, ("--ro-bind", str(nothing), str(path))) for nothing, path in self.blank),
        ]
        for _, arguments in sorted(found, key=lambda place: len(place[0].parts)):
            yield from arguments
        yield from ("--remount-ro", "/")


def _walls(nests: bool) -> Iterator[str]:
    """Own users, processes, inter-process memory and host name; no rights; gone when its parent is."""
    yield from ("--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts")
    yield from ("--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL")
    if nests and os.getuid() == 0:
        yield from ("--uid", str(ORDINARY), "--gid", str(ORDINARY))  # root's number cannot be handed on once more
    if not nests:
        yield "--disable-userns"


@cache
def _system() -> tuple[str, ...]:
    """Return the system, read-only, as this machine has it; looked at once."""
    found: list[str] = []
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            found += ["--symlink", str(path.readlink()), name]
        elif path.exists():
            found += ["--ro-bind", str(path.resolve()), name]
    tmp = (*_empty("/tmp", TMP_BYTES), *_empty("/run", RUN_BYTES))  # noqa: S108 - its own
    return (*found, "--proc", "/proc", *_kernel(), "--dev", "/dev", *tmp)


def _empty(place: str, size: int) -> tuple[str, ...]:
    return ("--size", str(size), "--tmpfs", place)


def _kernel() -> Iterator[str]:
    """Keep the kernel's own switches shut: to a process of root they would be open, whatever rights it has lost."""
    for path in sorted(Path("/proc").iterdir()):
        is_process = path.name.isdigit() or path.is_symlink()
        if not is_process and (path.is_dir() or path.stat().st_mode & 0o222):
            yield from ("--ro-bind", str(path), str(path))


def _within(path: Path, place: Path) -> bool:
    return path.is_relative_to(place)
