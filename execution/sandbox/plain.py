"""Reading what a CLI wrote where its tools can write too: nothing but a plain file of a known size is opened."""

from __future__ import annotations

from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from fleet.kernel import distrusted

LARGEST = 256 * 1024 * 1024


def open_plain(path: Path) -> TextIO:
    """Open a text to read. Raises OSError for a link, a pipe, a device, and what is too large: one of them would hold a worker for ever."""
    return TextIOWrapper(distrusted.open_plain_at(path, largest=LARGEST), encoding="utf-8", errors="replace")
