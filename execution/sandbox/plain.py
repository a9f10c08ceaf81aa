"""Reading what a CLI wrote where its tools can write too: nothing but a plain file of a known size is opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TextIO

LARGEST = 256 * 1024 * 1024


def open_plain(path: Path) -> TextIO:
    """Open a text to read. Raises OSError for a link, a pipe, a device, and what is too large: one of them would hold a worker for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no plain file, or too large", str(path))
    return os.fdopen(descriptor, encoding="utf-8", errors="replace")
