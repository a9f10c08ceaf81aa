"""PostgreSQL goes away in the middle of a turn and comes back: nothing is lost, nothing is written twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import OperationalError, connection

from budgets.models import Reservation
from execution import actions, queries
from execution.engine import Supervisor, attempt, supervisor
from execution.engine.attempt import Attempt
from execution.engine.halts import Halt
from execution.models import Execution
from execution.providers import registry
from execution.providers.mock import script
from execution.states import EventKind, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import database
from fleet.platform.embedded import EmbeddedPostgres
from tests.budgets import scenes
from tests.emulators.model import ModelEmulator
from tests.execution import fake_cli
from tests.execution.running import CeleryWorker, ended, eventually, running, table, until
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


def test_a_database_that_stands_still_for_ten_seconds(
    worker: Supervisor, postgres: EmbeddedPostgres, monkeypatch
) -> None:
    """Nobody is told that it is away: every question waits, and is answered in the end."""
    monkeypatch.setattr(script, "WORD_SECONDS", 0.02)
    execution = offered(worker, "mock:words=200")
    until(lambda row: len(queries.events_after(row.pk)) > 3, execution)
    postgres.pause()
    time.sleep(10)
    postgres.resume()
    row = until(ended, execution)
    events = queries.events_after(row.pk)
    assert (row.state, row.attempt, row.epoch) == (ExecutionState.SUCCEEDED, 1, 0)
    assert "".join(event.payload["text"] for event in events if event.kind == EventKind.TEXT) == row.answer
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


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


class TestAGateThatIsBeingOpened:
    """No prompt has been handed over: whoever ends the turn need not wait for the database."""

    @pytest.fixture(autouse=True)
    def a_cli(self, tmp_path: Path, settings, monkeypatch) -> None:
        """Answers, and counts what it is asked. Nobody gives up by himself."""
        life = "ready(); prompt(); open('asked', 'a').write('x'); text('Hi.'); result('Hi.'); hear()"
        settings.ANTHROPIC_API_KEY = "sk-ant-canary-not-a-key"
        settings.FLEET_CLAUDE_CLI = str(fake_cli.write(tmp_path / "claude", life))
        registry.get("claude").warm_up()
        monkeypatch.setattr(attempt, "SURVIVE_SECONDS", 600.0)

    @pytest.fixture
    def at_the_gate(self, worker: Supervisor, monkeypatch) -> Callable[..., Attempt]:
        """Do this before the first release, which is then `happens`; return the attempt that is at it."""

        def begun(before: Callable[[], None] = lambda: None, happens: Callable[..., Any] = actions.release) -> Attempt:
            there, release = threading.Event(), actions.release

            def released(**given: Any) -> Any:
                if there.is_set():
                    return release(**given)
                before()
                there.set()
                return happens(**given)

            monkeypatch.setattr(actions, "release", released)
            execution = made.queued("Hello", provider="claude")
            worker.offer(execution.pk, 0)
            assert there.wait(60)
            (held,) = worker._held()
            return held

        return begun

    def asked(self, row: Execution, settings) -> int:
        path = Path(settings.FLEET_WORKSPACES) / row.identity.slug / "asked"
        return len(path.read_text()) if path.exists() else 0

    def test_a_worker_that_is_told_to_go_ends_it_and_another_one_begins_it_anew(
        self, at_the_gate, postgres: EmbeddedPostgres, settings
    ) -> None:
        held = at_the_gate(postgres.stop)
        held.leave(otherwise=supervisor._RESTART, until=time.monotonic() + 0.2)
        eventually(lambda: held._run and not held._run.is_there(), "its process to be ended")
        connection.close()
        postgres.start()
        row = until(ended, held.execution)
        assert (row.state, row.attempt, row.epoch, self.asked(row, settings)) == (ExecutionState.SUCCEEDED, 2, 1, 1)

    def test_a_worker_that_gives_itself_up_ends_it_and_it_begins_anew(
        self, at_the_gate, postgres: EmbeddedPostgres, settings
    ) -> None:
        held = at_the_gate(postgres.stop)
        held.halt(supervisor._FENCED)
        eventually(lambda: held._run and not held._run.is_there(), "its process to be ended")
        connection.close()
        postgres.start()
        row = until(ended, held.execution)
        assert (row.state, row.attempt, self.asked(row, settings)) == (ExecutionState.SUCCEEDED, 2, 1)

    def test_a_database_that_is_away_for_too_long_costs_nobody_a_turn_that_had_not_begun(
        self, at_the_gate, settings, monkeypatch
    ) -> None:
        monkeypatch.setattr(attempt, "SURVIVE_SECONDS", 0.0)

        def away(**_: Any) -> None:
            raise OperationalError("the server is away")

        row = until(ended, at_the_gate(happens=away).execution)
        assert (row.state, row.attempt, self.asked(row, settings)) == (ExecutionState.SUCCEEDED, 2, 1)

    def test_a_stop_ends_it_and_says_so_as_soon_as_it_can(
        self, at_the_gate, postgres: EmbeddedPostgres, settings
    ) -> None:
        held = at_the_gate(postgres.stop)
        held.halt(Halt(OutcomeClass.STOPPED, "Stopped by Eva."))
        eventually(lambda: held._run and not held._run.is_there(), "its process to be ended")
        connection.close()
        postgres.start()
        row = until(ended, held.execution)
        assert (row.state, row.sentence, self.asked(row, settings)) == (ExecutionState.STOPPED, "Stopped by Eva.", 0)
        assert (row.process_gone_at is not None, row.spend_stage) == (True, SpendStage.NONE)
        assert Reservation.objects.get(pk=row.reservation_id).state == "released"

    @pytest.mark.parametrize("reply", ["arrives", "is lost"])
    def test_a_release_that_is_written_all_the_same_is_paid_by_nobody(self, at_the_gate, settings, reply: str) -> None:
        told, release = threading.Event(), actions.release

        def release_late(**given: Any) -> Any:
            texts = release(**given)
            assert told.wait(60)
            if reply == "is lost":
                raise OperationalError("the connection is lost")
            return texts

        held = at_the_gate(happens=release_late)
        held.leave(otherwise=supervisor._RESTART, until=time.monotonic() + 0.2)
        told.set()
        row = until(ended, held.execution)
        assert (row.state, row.attempt, self.asked(row, settings)) == (ExecutionState.STOPPED, 1, 0)
        assert "restarted before this was finished" in row.sentence
        assert (row.spend_stage, row.process_gone_at is not None) == (SpendStage.SETTLED, True)
        reservation = Reservation.objects.get(pk=row.reservation_id)
        assert (reservation.state, reservation.cost_nano_usd) == ("settled", 0)


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
