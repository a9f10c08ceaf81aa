"""A thread that does one thing again and again, on a clock of its own, whatever happens to the rest of the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from django.db import connection

log = structlog.get_logger(__name__)


class Ticker:
    """Calls `work` every `seconds`, however long it takes, and at once when woken.

    An error is logged and the next tick comes all the same; work that takes too long is given a pause of its own.
    """

    def __init__(self, name: str, work: Callable[[], None], *, seconds: float) -> None:
        self._name, self._work, self._seconds = name, work, seconds
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"execution:{name}", daemon=True)

    def start(self) -> None:
        """Begin, with a first tick at once."""
        self._thread.start()

    def wake(self) -> None:
        """Tick now."""
        self._wake.set()

    def stop(self) -> None:
        """End after the current tick."""
        self._ended.set()
        self._wake.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            began = time.monotonic()
            try:
                self._work()
            except Exception as error:
                connection.close()
                log.warning("execution.tick_failed", tick=self._name, error=str(error).splitlines()[:1])
            took = time.monotonic() - began
            self._wake.wait(max(self._seconds - took, self._seconds / 5))
        connection.close()
