"""PostgreSQL is killed right after a commit that did not wait for the disk: what it forgets is done again, once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import connection

from conversations import actions
from conversations.models import InboundMessage, Turn
from conversations.states import InboundState
from execution import actions as execution_actions
from execution import queries
from execution.engine import Supervisor
from execution.models import Execution
from execution.providers import registry
from execution.states import EventKind, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel.exceptions import Fenced
from fleet.platform.embedded import EmbeddedPostgres
from tests.budgets.scenes import assert_books_are_right
from tests.conversations import scenes
from tests.conversations.scenes import GATEWAY, WORKER
from tests.execution import fake_cli
from tests.factories import execution as made

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def crash(transactional_db: None, postgres: EmbeddedPostgres) -> Iterator[Callable[[], None]]:
    """Kill PostgreSQL with everything that its commits have not waited for, and start it again."""
    waits_for_the_disk()
    stopped = [process for process in psutil.Process(postgres.pid).children() if writes_for_others(process)]
    assert len(stopped) == len(WRITERS), "somebody writes in the background what a commit did not wait for"
    for process in stopped:
        process.suspend()

    def kill() -> None:
        postgres.kill()
        connection.close()
        connection.close_pool()
        postgres.start()
        waits_for_the_disk()

    yield kill
    connection.close()
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


# Each of them takes to the disk what it finds, the last one by those that it lets start.
WRITERS = ("walwriter", "background writer", "checkpointer", "autovacuum launcher")


def writes_for_others(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(name in " ".join(process.cmdline()) for name in WRITERS)
    return False


def waits_for_the_disk() -> None:
    """As in an installation; the databases of tests wait for no commit at all."""
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit TO on")


def state_of(inbound_id: int) -> str:
    return InboundMessage.objects.get(pk=inbound_id).state


def test_a_message_whose_taking_in_is_forgotten_is_taken_in_again(eva, crash: Callable[[], None]) -> None:
    received = actions.receive(scenes.message("Hello"), by=GATEWAY)
    assert actions.process(received.inbound_id).kind == "turn"
    crash()
    assert (state_of(received.inbound_id), Turn.objects.count(), Execution.objects.count()) == ("received", 0, 0)
    again = actions.process(received.inbound_id)
    scenes.answer(scenes.turn_of(again))
    assert (state_of(received.inbound_id), Turn.objects.count()) == (InboundState.TAKEN, 1)
    assert Execution.objects.get().state == ExecutionState.SUCCEEDED
    assert_books_are_right()


def test_who_believes_in_a_claim_that_is_forgotten_spends_nothing(eva, crash: Callable[[], None]) -> None:
    turn = scenes.turn_of(scenes.say("Hello"))
    worker = execution_actions.register_worker(
        process=scenes.facts(), slots=4, by=WORKER
    )  # waits, and takes the turn along
    claim = {"execution_id": turn.execution_id, "epoch": 0, "worker_id": worker.pk, "by": WORKER}
    believed = execution_actions.claim(**claim)
    crash()
    assert Execution.objects.get().state == ExecutionState.QUEUED
    with pytest.raises(Fenced):
        execution_actions.release(execution=believed, process=None, by=WORKER)
    assert Execution.objects.get().spend_stage == SpendStage.RESERVED
    again = execution_actions.claim(**claim)
    assert (again.pk, again.epoch, again.owner_id, again.attempt) == (believed.pk, 0, believed.owner_id, 1)
    with pytest.raises(Fenced):
        execution_actions.release(execution=believed, process=None, by=WORKER)
    assert execution_actions.release(execution=again, process=None, by=WORKER)
    with pytest.raises(Fenced):
        execution_actions.release(execution=believed, process=None, by=WORKER)


def test_nothing_is_written_for_a_claim_that_is_forgotten(eva, crash: Callable[[], None]) -> None:
    turn = scenes.turn_of(scenes.say("Hello"))
    worker = execution_actions.register_worker(process=scenes.facts(), slots=4, by=WORKER)
    claim = {"execution_id": turn.execution_id, "epoch": 0, "worker_id": worker.pk, "by": WORKER}
    believed = execution_actions.claim(**claim)
    crash()
    again = execution_actions.claim(**claim)
    lines = [(EventKind.TEXT, {"text": "Good day."})]
    with pytest.raises(Fenced):
        execution_actions.record_events(execution=believed, first_sequence=1, lines=lines)
    assert not execution_actions.requeue(execution=believed, by=WORKER, why="test")
    assert not queries.is_owned(believed)
    assert list(queries.still_owned([believed, again])) == [again.pk]
    assert not queries.still_owned([believed])
    scenes.end(again, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.")
    with pytest.raises(Fenced):
        scenes.end(believed, ExecutionState.FAILED, OutcomeClass.ERROR)


class TestAWorker:
    """The claim of an attempt whose CLI has just started is forgotten."""

    @pytest.fixture
    def asked(self, tmp_path: Path, settings) -> Callable[[], int]:
        """Let a CLI answer that counts what it is asked; return how often it was."""
        settings.FLEET_WORKSPACES, settings.FLEET_HOMES = tmp_path / "workspaces", tmp_path / "homes"
        settings.ANTHROPIC_API_KEY = "sk-ant-canary-not-a-key"
        life = "ready(); prompt(); open('asked', 'a').write('x'); text('Hi.'); result('Hi.'); hear()"
        settings.FLEET_CLAUDE_CLI = str(fake_cli.write(tmp_path / "claude", life))
        registry.get("claude").warm_up()
        return lambda: sum(len(path.read_text()) for path in settings.FLEET_WORKSPACES.glob("*/asked"))

    @pytest.fixture
    def worker(self, asked: Callable[[], int]) -> Iterator[Supervisor]:
        """One without clocks, so that nothing but the test finds the row again."""
        worker = Supervisor(slots=4)
        worker._register()
        worker._accepting = True
        yield worker
        assert worker._wait_until_idle(60)
        worker._standby.close()
        assert worker._standby.wait_ended(20)

    @pytest.fixture
    def gate(self, monkeypatch: pytest.MonkeyPatch) -> Gate:
        """The spend gate, at which the first attempt waits for a second one."""
        gate = Gate(execution_actions.release)
        monkeypatch.setattr(execution_actions, "release", gate.release)
        return gate

    def test_that_claims_its_turn_again_asks_once(self, crash, worker: Supervisor, gate: Gate, asked) -> None:
        made.set_the_table()
        execution = made.queued("Hello", provider="claude")
        worker._register()  # waits for the disk, and takes the turn along
        worker.offer(execution.pk, 0)
        assert gate.reached.wait(60)
        crash()
        assert Execution.objects.get().state == ExecutionState.QUEUED
        assert not worker.offer(execution.pk, 0), "while its first attempt has not noticed"
        worker.work(execution.pk, 0)  # as one that was on its way already
        assert worker._wait_until_idle(60)
        row = Execution.objects.get()
        assert (row.state, row.answer, row.attempt, asked()) == (ExecutionState.SUCCEEDED, "Hi.", 1, 1)


class Gate:
    """Opens as ever, but the first attempt that comes to it waits for a second one, and then goes first."""

    def __init__(self, opens: Callable[..., Any]) -> None:
        self._opens = opens
        self._first: Execution | None = None
        self.reached, self._second_is_here, self._first_has_tried = (threading.Event() for _ in range(3))

    def release(self, **given: Any) -> Any:
        if self._first is None:
            self._first = given["execution"]
            connection.close()  # it has none at hand that is dead by then
            self.reached.set()
            assert self._second_is_here.wait(60)
        if given["execution"] is not self._first:
            self._second_is_here.set()
            assert self._first_has_tried.wait(60)
        try:
            return self._opens(**given)
        finally:
            if given["execution"] is self._first:
                self._first_has_tried.set()


def test_an_open_gate_takes_all_that_led_to_it_to_the_disk(eva, crash: Callable[[], None]) -> None:
    received = actions.receive(scenes.message("Hello"), by=GATEWAY)
    running = scenes.running(scenes.turn_of(actions.process(received.inbound_id)))
    crash()
    row = Execution.objects.get()
    assert (row.pk, row.state, row.spend_stage) == (running.pk, ExecutionState.RUNNING, SpendStage.RELEASED)
    assert state_of(received.inbound_id) == InboundState.TAKEN
