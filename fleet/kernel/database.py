"""Living through a restart of PostgreSQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg_pool
import structlog
from django.db import InterfaceError, OperationalError, connection
from django.db.models import TextField
from django.db.models.expressions import RawSQL

from fleet.kernel.exceptions import Unavailable

log = structlog.get_logger(__name__)
Result = TypeVar("Result")
AWAY = (OperationalError, InterfaceError, psycopg_pool.PoolTimeout)  # what is raised where PostgreSQL does not answer


def unavailable(error: BaseException) -> Unavailable:
    """Return one of AWAY as a person reads it; what it says itself is for the log."""
    log.warning("database.away", error=str(error).splitlines()[0])
    return Unavailable(
        "Fleet cannot reach its database.",
        why="PostgreSQL does not answer, or is starting again.",
        next_step="Try again in a few seconds. Nothing that was accepted is lost.",
        code="database_away",
    )


def survive(
    write: Callable[[], Result], *, seconds: float, pause: float = 0.5, unless: Callable[[], bool] = lambda: False
) -> Result:
    """Call `write` until the database answers, for at most `seconds` or until `unless`; then the last error is raised.

    Only for work that may be repeated: a guarded update, or an insert under a unique key. Never inside a transaction.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            return write()
        except AWAY as error:
            connection.close()
            if time.monotonic() >= give_up or unless():
                raise
            log.warning("database.away", error=str(error).splitlines()[0])
            time.sleep(pause)


COMMITS_EARLY = (
    "set_config('synchronous_commit', 'off', true)"  # what `commits_early` says, for SQL that is written out
)


def commits_early() -> RawSQL:
    """Return an expression that, read along with any row, lets this transaction commit without waiting for the disk; no statement more.

    Only for a transaction that may be done again: should the machine die within the next moments, it has not happened. The next
    commit that does wait takes it to the disk as well, so nothing that depends on it can outlive it.
    """
    return RawSQL(COMMITS_EARLY, (), output_field=TextField())  # noqa: S611 - a constant


def ask_again(pool: psycopg_pool.ConnectionPool[Any]) -> None:
    """Let a pool that gave up an attempt to connect begin another one: those who wait in it would wait in vain."""
    with contextlib.suppress(psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed):
        pool.putconn(pool.getconn(timeout=0.01))
