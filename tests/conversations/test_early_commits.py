"""PostgreSQL is killed right after a commit that did not wait for the disk: what it forgets is done again, once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psutil
import pytest
from django.db import connection

from conversations import actions
from conversations.models import InboundMessage, Turn
from conversations.states import InboundState
from execution import actions as execution_actions
from execution.models import Execution
from execution.states import ExecutionState, SpendStage
from fleet.kernel.exceptions import Fenced
from fleet.platform.embedded import EmbeddedPostgres
from tests.budgets.scenes import assert_books_are_right
from tests.conversations import scenes
from tests.conversations.scenes import GATEWAY, WORKER

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
    assert execution_actions.claim(**claim) is not None


def test_an_open_gate_takes_all_that_led_to_it_to_the_disk(eva, crash: Callable[[], None]) -> None:
    received = actions.receive(scenes.message("Hello"), by=GATEWAY)
    running = scenes.running(scenes.turn_of(actions.process(received.inbound_id)))
    crash()
    row = Execution.objects.get()
    assert (row.pk, row.state, row.spend_stage) == (running.pk, ExecutionState.RUNNING, SpendStage.RELEASED)
    assert state_of(received.inbound_id) == InboundState.TAKEN
