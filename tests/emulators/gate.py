"""A place where a request waits until the test lets it go on."""

import asyncio
import threading


class Gate:
    """Holds every request that reaches it until `release()`; the test learns of each arrival."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self._changed = threading.Condition()
        self.arrivals = 0
        self.left = 0

    def wait_arrived(self, count: int = 1, timeout: float = 120) -> None:
        """Wait until `count` requests have come this far."""
        self._wait(lambda: self.arrivals >= count, timeout, f"{count} requests at the gate")

    def wait_left(self, count: int = 1, timeout: float = 120) -> None:
        """Wait until `count` requests went on or were given up by their sender."""
        self._wait(lambda: self.left >= count, timeout, f"{count} requests to leave the gate")

    def release(self) -> None:
        self._released.set()

    async def pass_through(self) -> None:
        self._count(arrivals=1)
        try:
            while not self._released.is_set():
                await asyncio.sleep(0.005)
        finally:
            self._count(left=1)

    def _count(self, arrivals: int = 0, left: int = 0) -> None:
        with self._changed:
            self.arrivals += arrivals
            self.left += left
            self._changed.notify_all()

    def _wait(self, reached, timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(reached, timeout):
                raise TimeoutError(f"Waited {timeout:.0f} s for {what}: {self.arrivals} arrived, {self.left} left.")
