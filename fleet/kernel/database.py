"""Living through a restart of PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connection

log = structlog.get_logger(__name__)
Result = TypeVar("Result")


def survive(write: Callable[[], Result], *, seconds: float, pause: float = 0.5) -> Result:
    """Call `write` until the database answers, for at most `seconds`; then the last error is raised.

    Only for work that may be repeated: a guarded update, or an insert under a unique key. Never inside a transaction.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            connection.close()
            if time.monotonic() >= give_up:
                raise
            log.warning("database.away", error=str(error).splitlines()[0])
            time.sleep(pause)
