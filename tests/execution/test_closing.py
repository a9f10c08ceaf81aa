"""One closing transaction, repeatable, fenced, and the money with it."""

import pytest

from budgets.models import Reservation
from execution import actions, events
from execution.actions import Ending
from execution.models import Execution, ExecutionEvent, OrphanResult
from execution.states import EventKind, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import events as kernel_events
from fleet.kernel.exceptions import Fenced
from fleet.kernel.models import JournalEntry
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.states import KillMode, KillScope
from tests.factories import execution as made
from tests.factories.execution import BY

ANSWERED = Ending(ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.")
FAILED = Ending(ExecutionState.FAILED, OutcomeClass.OVERLOAD, "Try again in a minute.")


def reservation_of(execution: Execution) -> str:
    return Reservation.objects.get(pk=execution.reservation_id).state


def test_an_answer_closes_everything_in_one_transaction(monkeypatch) -> None:
    told: list[kernel_events.Event] = []
    monkeypatch.setitem(kernel_events._handlers, events.FINISHED, [told.append])
    execution = made.running()
    row = actions.finish(execution=execution, ending=ANSWERED, by=BY)
    assert (row.state, row.answer, row.spend_stage) == (ExecutionState.SUCCEEDED, "Good day.", SpendStage.SETTLED)
    assert (row.ended_at, row.lease_until) != (None, None)
    assert reservation_of(row) == "settled"
    assert told[0].details["origin_id"] == execution.origin_id
    assert told[0].details["answer_length"] == len("Good day.")
    assert ExecutionEvent.objects.get(execution=row).kind == EventKind.ENDED


def test_lines_not_written_yet_come_before_the_end() -> None:
    execution = made.running()
    lines = [(EventKind.TEXT, {"text": "Good "}), (EventKind.TEXT, {"text": "day."})]
    actions.finish(execution=execution, ending=ANSWERED, lines=lines, first_sequence=1, by=BY)
    kinds = ExecutionEvent.objects.filter(execution=execution).order_by("sequence").values_list("sequence", "kind")
    assert list(kinds) == [(1, "text"), (2, "text"), (3, "ended")]


def test_the_first_text_tells_when_it_came() -> None:
    execution = made.running()
    actions.record_events(execution=execution, first_sequence=1, lines=[(EventKind.STARTED, {}), (EventKind.TEXT, {})])
    row = actions.finish(execution=execution, ending=ANSWERED, by=BY)
    text = ExecutionEvent.objects.get(execution=row, kind=EventKind.TEXT)
    assert (row.first_event_at, row.first_text_at) == (text.at, text.at)


def test_closing_may_be_repeated_after_a_reply_that_was_lost() -> None:
    execution = made.running()
    actions.finish(execution=execution, ending=ANSWERED, by=BY)
    assert actions.finish(execution=execution, ending=FAILED, by=BY).state == ExecutionState.SUCCEEDED
    assert JournalEntry.objects.filter(event=events.FINISHED, subject_id=execution.pk).count() == 1


def test_what_never_opened_its_gate_costs_nothing() -> None:
    execution = made.claimed()
    row = actions.finish(execution=execution, ending=FAILED, by=BY)
    assert (row.spend_stage, reservation_of(row)) == (SpendStage.NONE, "released")


def test_what_was_lost_after_its_release_stays_uncertain() -> None:
    execution = made.running()
    lost = Ending(ExecutionState.LOST, OutcomeClass.LOST, "Its worker was lost.")
    row = actions.finish(execution=execution, ending=lost, by=BY)
    assert (row.spend_stage, reservation_of(row)) == (SpendStage.UNKNOWN, "uncertain")


def stolen() -> Execution:
    """An execution as its first worker remembers it; another owns it now."""
    execution = made.claimed()
    actions.requeue(execution=execution, by=BY, why="test")
    actions.claim(execution_id=execution.pk, epoch=1, worker_id=made.WorkerFactory().pk, by=BY)
    return execution


def test_a_fenced_worker_writes_nothing() -> None:
    execution = stolen()
    with pytest.raises(Fenced):
        actions.finish(execution=execution, ending=ANSWERED, by=BY)
    with pytest.raises(Fenced):
        actions.record_events(execution=execution, first_sequence=1, lines=[(EventKind.TEXT, {"text": "late"})])
    assert not ExecutionEvent.objects.filter(execution=execution).exists()
    assert Execution.objects.get(pk=execution.pk).state == ExecutionState.STARTING


def test_what_a_fenced_worker_had_is_kept_apart() -> None:
    execution = stolen()
    actions.keep_orphan(execution=execution, ending=ANSWERED, by=BY)
    orphan = OrphanResult.objects.get(execution_id=execution.pk)
    assert (orphan.answer, orphan.epoch) == ("Good day.", 0)
    assert Execution.objects.get(pk=execution.pk).answer == ""


def test_events_may_be_written_twice_and_are_there_once() -> None:
    execution = made.running()
    lines = [(EventKind.TEXT, {"text": "a"}), (EventKind.TEXT, {"text": "b"})]
    assert actions.record_events(execution=execution, first_sequence=1, lines=lines) == 3
    assert actions.record_events(execution=execution, first_sequence=1, lines=lines) == 3
    assert ExecutionEvent.objects.filter(execution=execution).count() == 2


@pytest.mark.parametrize("ending", [ANSWERED, FAILED])
def test_an_end_closes_the_line_of_the_order_that_waits_for_it(ending: Ending) -> None:
    execution = made.running()
    order = governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.DRAIN, reason="fire drill", by=BY)
    assert [line.subject for line in governance_queries.open_lines(order)] == [str(execution.pk)]
    actions.finish(execution=execution, ending=ending, by=BY)
    (line,) = governance_queries.receipt(order).lines
    assert (line.killed, line.milliseconds is not None) == (False, True)


def test_a_process_not_seen_gone_keeps_its_line_open_until_there_is_proof() -> None:
    execution = made.running(process=made.dead_process())
    order = governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="fire drill", by=BY)
    actions.finish(execution=execution, ending=ANSWERED, by=BY)
    assert [line.subject for line in governance_queries.open_lines(order)] == [str(execution.pk)]
    actions.sweep()
    assert not governance_queries.open_lines(order).exists()
    assert Execution.objects.get(pk=execution.pk).process_gone_at is not None
