"""Ctrl-C for a command that has something under way which should be stopped in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self


class Interrupts:
    """Hears Ctrl-C. One that comes before there is anything to stop is kept for whoever can stop it; a second one by then leaves."""

    def __init__(self) -> None:
        self._hear: Callable[[], object] | None = None
        self._missed = 0  # came when nobody could stop anything

    def __enter__(self) -> Self:
        """Hear them instead of Python."""
        self._before = signal.signal(signal.SIGINT, self._take) or signal.SIG_DFL
        return self

    def __exit__(self, *_: object) -> None:
        """Leave them to whoever heard them before."""
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def heard_by(self, hear: Callable[[], object]) -> Iterator[None]:
        """Call this for each one, in the middle of anything, and at once for one that came before."""
        self._hear = hear
        try:
            if self._missed:
                self._missed = 0
                hear()
            yield
        finally:
            self._hear = None

    def _take(self, *_: object) -> None:
        if self._hear:
            self._hear()
            return
        self._missed += 1
        if self._missed > 1:
            raise KeyboardInterrupt
