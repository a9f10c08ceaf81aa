"""Two real workers, the real CLI and an emulated model: a session's turns stay where its process is, and never wait for long."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings

from execution import actions
from execution.actions.dispatching import ALONE_SECONDS
from execution.models import Execution, HeldProcess, Worker
from execution.states import ExecutionState
from fleet.kernel import queue
from fleet.kernel.models import JournalEntry
from identities.models import Identity
from tests.emulators.model import ModelEmulator
from tests.execution.running import CeleryWorker, ended, eventually, running, until
from tests.factories import execution as made
from tests.factories.execution import BY

pytestmark = [pytest.mark.timeout(600), pytest.mark.django_db(transaction=True), pytest.mark.realcli]


class Session:
    """A session of a bot, whose turns come one after the other."""

    def __init__(self, bot: Identity) -> None:
        self.id, self.turns, self._bot = str(uuid.uuid4()), 0, bot

    def ask(self, text: str = "Hello") -> Execution:
        """Queue the next turn."""
        self.turns += 1
        before = self.turns - 1
        return made.queued(text, identity=self._bot, provider="claude", session_id=self.id, session_turns=before)

    def answered(self, text: str = "Hello") -> Execution:
        """Let the next turn be answered."""
        row = until(ended, self.ask(text))
        assert row.state == ExecutionState.SUCCEEDED, row.sentence
        return row

    def held(self, turns: int) -> HeldProcess:
        """Wait until the process is noted that has answered so many turns."""
        return eventually(lambda: HeldProcess.objects.filter(session_id=self.id, turns=turns).first(), "the note")


@pytest.fixture(autouse=True)
def table() -> None:
    """Prices, budgets and policy."""
    queue._silent_until = 0.0
    made.set_the_table()


@pytest.fixture
def workers(tmp_path: Path, model_emulator: ModelEmulator) -> Iterator[dict[int, CeleryWorker]]:
    """Two workers of one host, by pid."""
    variables = {"ANTHROPIC_API_KEY": "sk-ant-canary-not-a-key", "ANTHROPIC_BASE_URL": model_emulator.url}
    both = [CeleryWorker(tmp_path / "var", **variables, FLEET_WORKER_SLOTS="2").start() for _ in range(2)]
    yield {worker.process.pid: worker for worker in both}
    for worker in both:
        worker.process.send_signal(signal.SIGCONT)
        worker.stop()


@pytest.fixture
def session() -> Session:
    return Session(made.BotFactory())


def test_all_turns_of_a_session_are_answered_by_the_process_that_answered_the_first(workers, session) -> None:
    first = session.answered()
    for turn in range(1, 10):
        session.held(turn)
        row = session.answered()
        assert (row.owner_id, row.pid) == (first.owner_id, first.pid)


def test_sessions_are_shared_out_among_the_workers(workers) -> None:
    rows = [until(ended, made.queued("mock:words=1", session_id=str(uuid.uuid4()))) for _ in range(12)]
    assert len({row.owner_id for row in rows}) == 2


def test_a_holder_that_is_killed_is_replaced_by_the_other(workers, session) -> None:
    first = session.answered()
    note = session.held(1)
    workers[first.owner.pid].kill()
    second = session.answered()
    assert second.owner_id != first.owner_id
    assert (second.claimed_at - second.queued_at).total_seconds() < 10
    eventually(lambda: actions.sweep() or not HeldProcess.objects.filter(pk=note.pk).exists(), "the note to be struck")
    assert Execution.objects.get(pk=first.pk).process_gone_at is not None
    ended_entry = JournalEntry.objects.get(event="execution.process.ended", subject_id=str(note.pk))
    assert (ended_entry.details["pid"], ended_entry.details["seen_gone"]) == (first.pid, True)


def test_a_holder_that_says_nothing_is_waited_for_but_not_for_long(workers, session) -> None:
    first = session.answered()
    session.held(1)
    os.kill(first.owner.pid, signal.SIGSTOP)
    second = session.answered()
    assert second.owner_id != first.owner_id
    assert (second.claimed_at - second.queued_at).total_seconds() >= ALONE_SECONDS


def test_a_holder_with_nothing_free_is_not_waited_for(workers, session, model_emulator) -> None:
    first = session.answered()
    session.held(1)
    model_emulator.hold("think", "Once upon a time there was a bot.", after_events=2)
    while Execution.objects.filter(owner=first.owner, state=ExecutionState.RUNNING).count() < 2:
        until(running, Session(made.BotFactory()).ask("think"))
    for row in Execution.objects.filter(state=ExecutionState.RUNNING).exclude(owner=first.owner):
        actions.request_stop(execution_id=row.pk, reason="make room", by=BY)
        until(ended, row)
    assert session.answered().owner_id != first.owner_id


def test_a_worker_that_is_drained_ends_what_it_holds_and_the_other_takes_over(workers, session) -> None:
    first = session.answered()
    note = session.held(1)
    actions.set_draining(worker_id=first.owner_id, draining=True, by=BY)
    eventually(lambda: not HeldProcess.objects.filter(pk=note.pk).exists(), "the process to end")
    assert Execution.objects.get(pk=first.pk).process_gone_at is not None
    assert session.answered().owner_id != first.owner_id


def test_a_process_that_somebody_ends_is_gone_and_the_next_turn_gets_another(workers, session) -> None:
    first = session.answered()
    note = session.held(1)
    actions.request_process_end(held_id=note.pk, by=BY)
    eventually(lambda: not HeldProcess.objects.filter(pk=note.pk).exists(), "the process to end")
    assert session.answered().pid != first.pid


def test_no_queue_is_left_of_a_worker_that_is_over(workers, session) -> None:
    first = session.answered()
    broker = redis.Redis.from_url(django_settings.REDIS_URL)
    name = actions.queue_of(first.owner_id)
    assert [entry for entry in broker.smembers("_kombu.binding.fleet.own") if name.encode() in entry]
    workers[first.owner.pid].stop()
    assert Worker.objects.get(pk=first.owner_id).stopped_at is not None
    assert not [entry for entry in broker.smembers("_kombu.binding.fleet.own") if name.encode() in entry]
    assert not broker.exists(name)


def test_without_redis_the_turn_is_found_all_the_same(workers, session, valkey) -> None:
    session.answered()
    session.held(1)
    valkey.stop()
    try:
        assert session.answered().state == ExecutionState.SUCCEEDED
    finally:
        valkey.start()
        queue._silent_until = 0.0


def test_a_first_turn_runs_in_a_process_that_was_started_ahead_where_that_is(workers) -> None:
    bot = made.BotFactory(prewarmed=1)
    Session(bot).answered()
    ahead = eventually(lambda: HeldProcess.objects.filter(identity=bot, turns=0).first(), "one to be started")
    model = Execution.objects.get().model
    taken = actions.adopt_prewarmed(identity=bot, provider="claude", model=model, conversation_id=9, by=BY)
    session = Session(bot)
    session.id = taken
    first = session.answered()
    assert (first.pid, first.owner_id) == (ahead.pid, ahead.worker_id)
    assert session.answered().pid == first.pid
