"""Files below a directory in which somebody writes whom we do not trust, such as a bot.

Every step goes through directory descriptors and no symbolic link is followed, so that it leads nowhere else, whatever is exchanged
meanwhile. `root` is the descriptor of that directory, `file` a relative path below it, with slashes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def opened(root: Path) -> Iterator[int]:
    """Open the directory itself, which lies where only we write. Raises OSError when it is none, or a link."""
    descriptor = os.open(root, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_plain(root: int, file: str, *, largest: int | None = None) -> BinaryIO:
    """Open a plain file to read. Raises OSError when it is missing, a link, a pipe or a device, or has more than `largest` bytes: those
    could hold us for ever.
    """
    path = _inside(file)
    with _parent(root, path) as parent:
        return _plain(os.open(path.name, _TO_READ, dir_fd=parent), file, largest)


def open_plain_at(path: Path, *, largest: int | None = None) -> BinaryIO:
    """Open a plain file by its whole path, like `open_plain`; a link among the directories above it is followed."""
    return _plain(os.open(path, _TO_READ), str(path), largest)


def read(root: int, file: str, *, at_most: int) -> bytes | None:
    """Return a plain file's bytes, or None when it is missing, longer, or not a plain file."""
    try:
        with open_plain(root, file) as source:
            content = source.read(at_most + 1)
    except OSError:
        return None
    return content if len(content) <= at_most else None


@contextlib.contextmanager
def listed(root: int, directory: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Yield what lies in a directory; what it says of an entry may be about a link. Raises OSError when it is none, or a link."""
    path = _inside(directory)
    with _parent(root, path) as parent:
        descriptor = os.open(path.name, _DIRECTORY, dir_fd=parent)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def replace(root: int, file: str, content: bytes, *, private: bool = False) -> None:
    """Write a file in one step, and the directories above it; what stands in the way is removed. `private`: for nobody else to read."""
    path = _inside(file)
    draft = f".{path.name}.{secrets.token_hex(8)}"
    with _parent(root, path, make=0o700 if private else 0o755) as parent:
        try:
            with os.fdopen(os.open(draft, _DRAFT, 0o600 if private else 0o644, dir_fd=parent), "wb") as target:
                target.write(content)
            _take_place(parent, draft, path.name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=parent)
            raise


def remove(root: int, file: str) -> None:
    """Remove a file, and the directory that it lay in when nothing else is there. Raises OSError when there is no such file."""
    path = _inside(file)
    with _parent(root, path) as parent:
        os.unlink(path.name, dir_fd=parent)
    with contextlib.suppress(OSError), _parent(root, path.parent) as above:
        os.rmdir(path.parent.name, dir_fd=above)


def _plain(source: int, name: str, largest: int | None) -> BinaryIO:
    state = os.fstat(source)
    if not stat.S_ISREG(state.st_mode) or (largest is not None and state.st_size > largest):
        os.close(source)
        raise OSError(errno.EINVAL, "no plain file, or too large", name)
    return os.fdopen(source, "rb")


def _inside(file: str) -> PurePosixPath:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise OSError(errno.EINVAL, "leads out of its directory", file)
    return path


@contextlib.contextmanager
def _parent(root: int, file: PurePosixPath, *, make: int | None = None) -> Iterator[int]:
    """Open the directory a file lies in, one step at a time; with `make`, those missing are made with this mode."""
    current = os.dup(root)
    try:
        for name in file.parts[:-1]:
            if make is not None:
                _make_directory(current, name, make)
            below = os.open(name, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _make_directory(parent: int, name: str, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.unlink(name, dir_fd=parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)


def _take_place(parent: int, draft: str, name: str) -> None:
    """Rename over whatever is there: a link is replaced, never followed; a directory in our place goes."""
    try:
        os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=parent)
        os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
