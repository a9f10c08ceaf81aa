"""What the person at the terminal reads."""

from __future__ import annotations

import contextlib
from pathlib import Path


def shown(path: Path) -> str:
    """Return `path` as the person would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def say(text: str) -> None:
    """Print one line at once; a terminal that is gone is no reason to leave services behind."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)  # noqa: T201 - this is the terminal's program
