"""PostgreSQL goes away in the middle of a turn and comes back: nothing is lost, nothing is written twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from django.db import connection

from execution import queries
from execution.engine import Supervisor
from execution.models import Execution
from execution.providers.mock import script
from execution.states import EventKind, ExecutionState, OutcomeClass
from fleet.kernel import database
from fleet.platform.embedded import EmbeddedPostgres
from tests.budgets import scenes
from tests.emulators.model import ModelEmulator
from tests.execution.running import CeleryWorker, ended, running, table, until
from tests.factories import execution as made

__all__ = ["table"]
pytestmark = [pytest.mark.timeout(600), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def worker(transactional_db: None, table: None) -> Iterator[Supervisor]:
    worker = Supervisor(slots=2)
    worker.start()
    yield worker
    worker.stop(grace=0)
    connection.close()


def offered(worker: Supervisor, text: str) -> Execution:
    execution = made.queued(text)
    worker.offer(execution.pk, 0)
    return execution


def test_a_restart_in_the_middle_of_an_answer(worker: Supervisor, postgres: EmbeddedPostgres, monkeypatch) -> None:
    monkeypatch.setattr(script, "WORD_SECONDS", 0.02)
    execution = offered(worker, "mock:words=200")
    until(lambda row: len(queries.events_after(row.pk)) > 3, execution)
    connection.close()
    postgres.restart()
    row = until(ended, execution)
    events = queries.events_after(row.pk)
    assert (row.state, row.attempt) == (ExecutionState.SUCCEEDED, 1)
    assert "".join(event.payload["text"] for event in events if event.kind == EventKind.TEXT) == row.answer
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert row.answer.split()[-1] == "word200"


def test_an_absence_of_some_seconds_at_the_end_of_a_turn(worker: Supervisor, postgres: EmbeddedPostgres) -> None:
    execution = offered(worker, "mock:slow=1 mock:words=3")
    until(running, execution)
    connection.close()
    postgres.stop()
    back = threading.Timer(5.0, postgres.start)
    back.start()
    back.join()
    row = until(ended, execution)
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "word1 word2 word3")


@pytest.mark.realcli
def test_forty_seconds_without_a_database_cost_no_answer_that_was_paid_for_and_leave_no_process(
    transactional_db: None, postgres: EmbeddedPostgres, model_emulator: ModelEmulator, tmp_path: Path
) -> None:
    made.set_the_table()
    model_emulator.reply("soon", "Here it is.", latency=4)
    model_emulator.silence("never", 120)
    credential = {"ANTHROPIC_API_KEY": "sk-ant-canary-not-a-key", "ANTHROPIC_BASE_URL": model_emulator.url}
    worker = CeleryWorker(tmp_path / "var", **credential).start()
    try:
        bot = made.BotFactory(concurrency=2)
        soon, never = (made.queued(text, identity=bot, provider="claude") for text in ("soon", "never"))
        endless = psutil.Process(until(running, never).pid)
        until(running, soon)
        connection.close()
        connection.close_pool()
        postgres.stop()
        back_at = time.monotonic() + 40
        gone, alive = psutil.wait_procs([endless], timeout=35)
        time.sleep(back_at - time.monotonic())
        postgres.start()
        answered, stopped = until(ended, soon), until(ended, never)
        later = until(ended, made.queued("Good morning", provider="claude"))
    finally:
        worker.stop()
    assert (answered.state, answered.answer) == (ExecutionState.SUCCEEDED, "Here it is.")
    assert (stopped.state, stopped.outcome) == (ExecutionState.FAILED, OutcomeClass.ERROR)
    assert "could not reach the database" in stopped.sentence
    assert gone and not alive
    assert later.state == ExecutionState.SUCCEEDED
    assert Counter(request.said for request in model_emulator.requests) == {"soon": 1, "never": 1, "Good morning": 1}
    scenes.assert_books_are_right()


def test_after_a_long_absence_whoever_waited_is_served_at_once(
    transactional_db: None, postgres: EmbeddedPostgres
) -> None:
    """Without ever longer pauses between the attempts to connect: the next one would be 15 s away by now."""
    connection.close()
    connection.close_pool()
    postgres.stop()
    served: list[float] = []

    def wait_for_it() -> None:
        database.survive(lambda: Execution.objects.count(), seconds=60)
        served.append(time.monotonic())
        connection.close()

    waiting = [threading.Thread(target=wait_for_it) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(16)
    postgres.start()
    back = time.monotonic()
    for thread in waiting:
        thread.join()
    assert len(served) == 3
    assert max(served) - back < 10


def test_many_broken_connections_hold_up_nobody(transactional_db: None, postgres: EmbeddedPostgres) -> None:
    """A process that was busy has as many idle connections, and a restart breaks them all."""
    busy = threading.Barrier(12)

    def work() -> None:
        Execution.objects.count()
        busy.wait()
        connection.close()

    at_work = [threading.Thread(target=work) for _ in range(busy.parties)]
    for thread in at_work:
        thread.start()
    for thread in at_work:
        thread.join()
    connection.close()
    postgres.restart()
    attempts: list[None] = []
    database.survive(lambda: (attempts.append(None), Execution.objects.count()), seconds=60)
    assert len(attempts) <= 3
