"""Queue, join, and stop what has not begun or has."""

import threading
import uuid

import pytest
from django.db import connection, transaction

from budgets.models import Reservation
from execution import actions, events
from execution.models import Execution
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import queue
from fleet.kernel.exceptions import NotFound, StateConflict
from fleet.kernel.models import JournalEntry
from tests.execution.running import eventually
from tests.factories import execution as made
from tests.factories.execution import BY

MORE = {"uuid": str(uuid.uuid4()), "text": "And one more thing."}


def test_queueing_hints_to_a_worker_only_after_commit(django_capture_on_commit_callbacks, monkeypatch) -> None:
    sent = []
    monkeypatch.setattr(queue, "publish", lambda job, arguments, **_: sent.append((job, arguments)))
    with django_capture_on_commit_callbacks() as callbacks:
        execution = made.queued()
        assert sent == []
    for callback in callbacks:
        callback()
    assert ("execution.run", {"execution_id": execution.pk, "epoch": 0}) in sent


def test_an_origin_that_is_being_worked_on_is_not_queued_twice() -> None:
    first = made.queued()
    with pytest.raises(StateConflict, match="being worked on already"):
        made.queued(origin_kind=first.origin_kind, origin_id=first.origin_id)


def test_a_message_joins_while_the_spend_gate_is_closed() -> None:
    execution = made.queued("One thing.")
    assert actions.join(execution_id=execution.pk, text=MORE)
    claimed = made.claimed(execution)
    assert actions.join(execution_id=execution.pk, text={**MORE, "text": "Another."})
    texts = actions.release(execution=claimed, process=None, by=BY)
    assert [text.text for text in texts] == ["One thing.", MORE["text"], "Another."]


def test_a_message_does_not_join_once_the_gate_is_open() -> None:
    execution = made.running()
    assert not actions.join(execution_id=execution.pk, text=MORE)
    assert len(Execution.objects.get(pk=execution.pk).prompt) == 1


def test_a_message_does_not_join_what_somebody_wants_stopped() -> None:
    execution = made.claimed()
    actions.request_stop(execution_id=execution.pk, reason="enough", by=BY)
    assert not actions.join(execution_id=execution.pk, text=MORE)


def test_stopping_what_waits_ends_it_at_once_and_frees_its_money() -> None:
    execution = made.queued()
    assert actions.request_stop(execution_id=execution.pk, reason="changed my mind", by=BY) == ExecutionState.STOPPED
    row = Execution.objects.get(pk=execution.pk)
    assert (row.outcome, row.spend_stage) == (OutcomeClass.STOPPED, SpendStage.NONE)
    assert "changed my mind" in row.sentence
    assert Reservation.objects.get(pk=row.reservation_id).state == "released"


def test_stopping_what_runs_leaves_a_request_for_its_worker() -> None:
    execution = made.running()
    assert actions.request_stop(execution_id=execution.pk, reason="enough", by=BY) == ExecutionState.RUNNING
    row = Execution.objects.get(pk=execution.pk)
    assert (row.state, row.stop_reason) == (ExecutionState.RUNNING, "enough")
    assert JournalEntry.objects.filter(event=events.STOP_REQUESTED, subject_id=execution.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_stopping_what_its_worker_gives_back_at_that_moment_ends_it() -> None:
    execution, seen = made.claimed(), []

    def stop() -> None:
        try:
            seen.append(actions.request_stop(execution_id=execution.pk, reason="enough", by=BY))
        finally:
            connection.close()

    stopping = threading.Thread(target=stop)
    with transaction.atomic():
        assert actions.requeue(execution=execution, by=BY, why="its worker was stopped")
        stopping.start()
        eventually(_somebody_waits_for_a_row, "the stop to meet the row")
    stopping.join(60)
    assert seen == [ExecutionState.STOPPED]
    assert Execution.objects.get(pk=execution.pk).state == ExecutionState.STOPPED


def _somebody_waits_for_a_row() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])


def test_asking_twice_changes_nothing() -> None:
    execution = made.running()
    actions.request_stop(execution_id=execution.pk, reason="first", by=BY)
    assert actions.request_stop(execution_id=execution.pk, reason="second", by=BY) == ExecutionState.RUNNING
    assert Execution.objects.get(pk=execution.pk).stop_reason == "first"


def test_what_has_ended_cannot_be_stopped() -> None:
    execution = made.queued()
    actions.request_stop(execution_id=execution.pk, reason="", by=BY)
    with pytest.raises(StateConflict, match="ended already"):
        actions.request_stop(execution_id=execution.pk, reason="", by=BY)


def test_what_does_not_exist_cannot_be_stopped() -> None:
    with pytest.raises(NotFound):
        actions.request_stop(execution_id=4711, reason="", by=BY)
