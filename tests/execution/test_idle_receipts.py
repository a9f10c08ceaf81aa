"""A stop is proven only when the processes that had nothing to do are gone too."""

from __future__ import annotations

import uuid

import pytest

from execution import actions
from execution.actions import Ending
from execution.models import Execution, HeldProcess, Worker
from execution.states import ExecutionState, OutcomeClass
from fleet.kernel import clock
from governance import actions as governance_actions
from governance.models import KillOrder
from governance.states import KillMode, KillScope, OrderState
from identities.models import Identity
from tests.factories import execution as made

BY = made.BY
pytestmark = pytest.mark.django_db(transaction=True)


def hold(worker: Worker, bot: Identity, pid: int = 4711, conversation: int = 7) -> HeldProcess:
    now = clock.now()
    moments = {"pid_started_at": 1.0, "began_at": now, "idle_since": now}
    whose = {"worker": worker, "identity": bot, "conversation_id": conversation}
    return HeldProcess.objects.create(session_id=str(uuid.uuid4()), turns=1, pid=pid, **whose, **moments)


def stop(scope: KillScope = KillScope.FLEET, scope_id: str = "") -> KillOrder:
    return governance_actions.stop(scope=scope, scope_id=scope_id, mode=KillMode.STOP, reason="drill", by=BY)


def lines(order: KillOrder) -> set[tuple[str, bool]]:
    return {(line.subject, line.expected) for line in order.lines.filter(kind="process")}


def test_a_stop_is_not_quiet_while_an_idle_process_is_there() -> None:
    worker, bot = made.WorkerFactory(), made.BotFactory()
    held = hold(worker, bot)
    order = stop()
    assert order.state == OrderState.STOPPING

    actions.note_process_ended(held_id=held.pk, why="a kill order", by=BY)
    order.refresh_from_db()
    line = order.lines.get()
    assert (order.state, line.killed, line.expected) == (OrderState.QUIET, True, True)
    assert f"process 4711 on {worker.host}" in line.sentence


def test_an_idle_process_that_nobody_saw_gone_stays_on_the_receipt() -> None:
    held = hold(made.WorkerFactory(), made.BotFactory())
    order = stop()
    actions.note_process_ended(held_id=held.pk, why="its host was lost", by=BY, seen_gone=False)
    order.refresh_from_db()
    assert order.state == OrderState.STOPPING


def test_beside_it_the_sweep_still_proves_what_has_answered_gone() -> None:
    hold(made.WorkerFactory(host="gone"), made.BotFactory())
    execution = made.running(process=made.dead_process())
    order = stop()
    answered = Ending(ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Yes.", gone=False)
    actions.finish(execution=execution, ending=answered, by=BY)
    assert {line.subject for line in order.lines.filter(quiet_at=None)} == {"idle:gone:4711", str(execution.pk)}

    actions.sweep()
    assert {line.subject for line in order.lines.filter(quiet_at=None)} == {"idle:gone:4711"}


def test_the_same_number_on_two_machines_is_two_processes() -> None:
    bot, here, there = made.BotFactory(), made.WorkerFactory(host="here"), made.WorkerFactory(host="there")
    held, _ = hold(here, bot), hold(there, bot)
    order = stop()
    actions.note_process_ended(held_id=held.pk, why="a kill order", by=BY)
    order.refresh_from_db()
    assert order.state == OrderState.STOPPING
    assert lines(order) == {("idle:here:4711", True), ("idle:there:4711", True)}


def test_an_order_names_the_idle_processes_of_its_scope_only() -> None:
    worker, ada, other = made.WorkerFactory(host="here"), made.BotFactory(), made.BotFactory()
    hold(worker, ada, pid=1, conversation=7)
    hold(worker, other, pid=2, conversation=8)
    assert lines(stop(KillScope.IDENTITY, ada.slug)) == {("idle:here:1", True)}
    assert lines(stop(KillScope.CONVERSATION, "8")) == {("idle:here:2", True)}
    assert lines(stop(KillScope.EXECUTION, "9")) == set()


def test_a_process_that_works_is_named_by_its_execution_alone() -> None:
    worker, bot = made.WorkerFactory(host="here"), made.BotFactory()
    held = hold(worker, bot)
    running = made.queued(identity=bot, session_id=held.session_id)
    actions.claim(execution_id=running.pk, epoch=running.epoch, worker_id=worker.pk, by=BY)
    assert Execution.objects.get(pk=running.pk).owner_id == worker.pk
    assert lines(stop()) == {(str(running.pk), True)}
