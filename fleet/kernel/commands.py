"""What every command of ours has in common: an operator reads a sentence where a developer would read a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fleet.kernel import database
from fleet.kernel.exceptions import FleetError, Unavailable


class FleetCommand(BaseCommand):
    """A command that ends with one sentence and exit code 1 when Fleet can explain why it did not do its work."""

    # A service's log keeps every attempt to reach the database; at a terminal one line says that we wait.
    serves = False

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run it; CommandError carries what Fleet can explain, also that there is no database."""
        try:
            with nullcontext() if self.serves else _told_once(self.stderr.write):
                return super().execute(*args, **options)
        except FleetError as error:
            raise CommandError(error.sentence) from error
        except database.AWAY as away:
            raise CommandError(without_database(away).sentence) from away


class ServiceCommand(FleetCommand):
    """A command that runs until it is told to end, without the pages that Django's checks would load; `make check` runs those."""

    serves = True
    requires_system_checks: list[str] = []


def without_database(away: BaseException) -> Unavailable:
    """Return one of database.AWAY as whoever sits at a terminal reads it: mostly nobody has started Fleet."""
    told = database.unavailable(away)
    return Unavailable(
        told.what, why=told.why, next_step=f"Is Fleet running? `make run` starts it. {told.next_step}", code=told.code
    )


@contextmanager
def _told_once(tell: Callable[[str], object]) -> Iterator[None]:
    """Say once that PostgreSQL is waited for, instead of everything that the pool has to say about it."""
    waiting = _Waiting(tell)
    logger = logging.getLogger("psycopg.pool")
    logger.addFilter(waiting)
    try:
        yield
    finally:
        logger.removeFilter(waiting)


class _Waiting(logging.Filter):
    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self._tell: Callable[[str], object] | None = tell

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep everything back."""
        tell, self._tell = self._tell, None
        if tell:
            tell("PostgreSQL does not answer yet. Waiting a few seconds for it.")
        return False
