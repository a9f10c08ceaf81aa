"""The periodic work of the house: sweeps, seals and checks, each on its own clock and none able to harm another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import psycopg
import structlog
from django.db import connection

from budgets import actions as budget_actions
from conversations import actions as conversation_actions
from execution import actions as execution_actions
from fleet.kernel import journal

log = structlog.get_logger(__name__)
_ALIVE = 0x52756E6E6572  # "Runner": the shared advisory lock that each living runner holds
_ROUND_AT_MOST_SECONDS = 60.0


@dataclass(slots=True)
class Duty:
    """One periodic piece of work. It must be repeatable at any time and by several processes at once."""

    name: str
    every_seconds: float
    run: Callable[[], object]
    last_round: float = field(default_factory=time.monotonic)
    failing: bool = False

    def keep_doing(self, stop: threading.Event) -> None:
        """Do it again and again until `stop`; whatever goes wrong is logged once and tried again."""
        while not stop.is_set():
            self.do()
            stop.wait(self.every_seconds)

    def do(self) -> None:
        """Do it once and give the database connection back."""
        try:
            self.run()
        except Exception as error:  # one duty's trouble must never end the runner
            if not self.failing:
                log.exception("runner.duty_fails", duty=self.name, error=str(error))
            self.failing = True
        else:
            if self.failing:
                log.info("runner.duty_works_again", duty=self.name)
            self.failing = False
            self.last_round = time.monotonic()
        finally:
            connection.close()

    @property
    def stuck(self) -> bool:
        """Return whether it has not come round for far too long."""
        return time.monotonic() - self.last_round > self.every_seconds + _ROUND_AT_MOST_SECONDS


def duties() -> list[Duty]:
    """Return what a runner does."""
    return [
        Duty("conversations.sweep", 1.0, conversation_actions.sweep),
        Duty("execution.bury", 0.5, partial(execution_actions.bury_dead_workers, believe_silence=False)),
        Duty("execution.sweep", 2.0, execution_actions.sweep),
        Duty("budgets.sweep", 5.0, budget_actions.sweep_reservations),
        Duty("execution.forget_transcripts", 3600.0, execution_actions.forget_transcripts),
        Duty("journal.seal", 1.0, journal.seal),
    ]


class SignOfLife:
    """Says in PostgreSQL itself that a runner lives: a shared advisory lock, which ends with the connection that holds it."""

    def __init__(self) -> None:
        self._line: psycopg.Connection | None = None

    def show(self) -> None:
        """Hold the lock; connect again when the connection was lost."""
        try:
            if self._line is None or self._line.closed:
                self._line = psycopg.connect(**connection.get_connection_params(), autocommit=True)
                self._line.execute("SELECT pg_advisory_lock_shared(%s)", [_ALIVE])
            self._line.execute("SELECT 1")
        except psycopg.Error as error:
            log.warning("runner.database_away", error=str(error).strip())
            self.hide()

    def hide(self) -> None:
        """Let go of it."""
        if self._line is not None:
            self._line.close()
            self._line = None


def runners_alive() -> int:
    """Return how many runners live and get their work done, as PostgreSQL sees it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND mode = 'ShareLock'"
            " AND (classid::bigint << 32) | objid::bigint = %s"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [_ALIVE],
        )
        return int(cursor.fetchone()[0])


def run(work: Iterable[Duty], stop: threading.Event, *, every_seconds: float = 2.0) -> None:
    """Do the work until `stop`, one thread per duty, and show a sign of life as long as none of them is stuck."""
    work, sign = list(work), SignOfLife()
    threads = [threading.Thread(target=duty.keep_doing, args=[stop], name=duty.name, daemon=True) for duty in work]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        stuck = [duty.name for duty in work if duty.stuck]
        if stuck:
            log.error("runner.duty_stuck", duties=stuck)
            sign.hide()
        else:
            sign.show()
        stop.wait(every_seconds)
    for thread in threads:
        thread.join(timeout=5)
    sign.hide()
