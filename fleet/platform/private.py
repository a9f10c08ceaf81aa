"""Directories and files that only their owner can enter and read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from fleet.platform.confinement import is_root, server_account

LONGEST_SOCKET_PATH = 107  # sun_path of unix(7), less its closing zero byte


def socket_directory(directory: Path) -> Path:
    """Return where the Unix sockets of `directory` are: inside, or below /tmp where that path is too long for a socket.

    The name below /tmp follows from user and directory, so that it is found again.
    """
    inside = directory.resolve() / "socket"
    if len(os.fsencode(inside / ".s.PGSQL.5432.lock")) <= LONGEST_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(inside)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"fleet-{os.geteuid()}-{digest}"


def make_private(directory: Path) -> None:
    """Create `directory` for its owner only; refuse one that somebody else could have put there."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    owners = {os.geteuid()} | ({server_account().pw_uid} if is_root() else set())
    if directory.is_symlink() or status.st_uid not in owners:
        raise PermissionError(f"{directory} belongs to another user. Remove it, or set FLEET_VAR to another directory.")
    directory.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else could read at any moment."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - mode at creation
        file.write(text)
