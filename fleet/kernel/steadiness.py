"""May leases be judged? After the database was away, or its clock has jumped, living owners look dead for a moment.

Leases are compared with the database's clock alone. When that clock leaps forward (a machine was suspended, or set right), or nobody
could renew anything because the database did not answer, every lease is over at once although each owner lives; within two beats all
of them are renewed. So whoever judges leases asks here first, and waits that long.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable

import structlog
from django.db import Error, connection

log = structlog.get_logger(__name__)
TOLERANCE_SECONDS = (
    5.0  # more than a sweep waits for its answer; a smaller leap ends no lease of 30 s that was just renewed
)
SILENCE_SECONDS = 15.0  # half a lease: whoever could not ask for so long was not the only one
PATIENCE_SECONDS = 12.0  # two beats of 5 s, and some


class Steadiness:
    """Compares the advance of the database's clock with that of this process's own, from one question to the next."""

    def __init__(
        self, *, ask: Callable[[], dt.datetime] | None = None, own: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask, self._own = ask or _database_time, own
        self._lock = threading.Lock()
        self._last: tuple[dt.datetime, float] | None = None
        self._doubtful_until = 0.0
        self._was_away = False

    def is_given(self) -> bool:
        """Return whether a lease that seems to be over is: False for PATIENCE_SECONDS after a leap or an absence. One statement.

        Raises DatabaseError while the database is away.
        """
        with self._lock:
            try:
                there, here = self._ask(), self._own()
            except Error:
                self._was_away = True
                raise
            if why := self._doubt(there, here):
                log.warning("leases.not_judged", why=why, waiting=PATIENCE_SECONDS)
                self._doubtful_until = here + PATIENCE_SECONDS
            self._last, self._was_away = (there, here), False
            return here >= self._doubtful_until

    def _doubt(self, there: dt.datetime, here: float) -> str:
        """Return what speaks against judging leases now; empty: nothing."""
        if self._was_away:
            return "the database was away"
        if self._last is None:
            return ""
        passed = here - self._last[1]
        leap = (there - self._last[0]).total_seconds() - passed
        if leap > TOLERANCE_SECONDS:
            return f"the database's clock leapt by {leap:.0f} s"
        return f"nobody asked for {passed:.0f} s" if passed > SILENCE_SECONDS else ""


def _database_time() -> dt.datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: dt.datetime = cursor.fetchone()[0]
        return moment


_steadiness = Steadiness()


def is_given() -> bool:
    """Return whether leases may be judged, as far as this process has seen."""
    return _steadiness.is_given()
