"""The table of steps, and the database that refuses any other."""

import itertools

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone

from execution.models import Execution, ExecutionEvent
from execution.states import EXECUTION, LEASED, ExecutionState, OutcomeClass
from tests.factories import execution as made

NOW = timezone.now
PAIRS = [(a, b) for a, b in itertools.product(ExecutionState, ExecutionState) if a != b]


def in_state(state: ExecutionState) -> Execution:
    """An execution that stands at `state`, put there behind the application's back."""
    fields = {
        "identity": made.BotFactory(),
        "provider": "mock",
        "model": "mock-1",
        "origin_kind": "test",
        "origin_id": "1",
    }
    if state in LEASED:
        fields |= {"owner": made.WorkerFactory(), "lease_until": NOW()}
    if state in EXECUTION.final:
        fields |= {"ended_at": NOW(), "outcome": OutcomeClass.OK}
    return Execution.objects.create(state=state, **fields)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_database_allows_exactly_the_steps_of_the_table(source: ExecutionState, target: ExecutionState) -> None:
    row = in_state(source)
    fields = {"owner": made.WorkerFactory(), "lease_until": NOW(), "ended_at": NOW(), "outcome": OutcomeClass.OK}
    try:
        with transaction.atomic():
            Execution.objects.filter(pk=row.pk).update(state=target, **fields)
        allowed = True
    except DatabaseError:
        allowed = False
    assert allowed == EXECUTION.allows(source, target)


@pytest.mark.parametrize("state", LEASED)
def test_nothing_runs_without_an_owner_and_a_lease(state: ExecutionState) -> None:
    row = in_state(state)
    for field in ("owner", "lease_until"):
        with pytest.raises(IntegrityError, match="execution_owned_while_running"), transaction.atomic():
            Execution.objects.filter(pk=row.pk).update(**{field: None})


@pytest.mark.parametrize("field", [{"outcome": ""}, {"ended_at": None}])
def test_an_end_has_an_outcome_and_a_time(field: dict[str, object]) -> None:
    row = in_state(ExecutionState.SUCCEEDED)
    with pytest.raises(IntegrityError, match="execution_ends_with_an_outcome"), transaction.atomic():
        Execution.objects.filter(pk=row.pk).update(**field)


def test_stopped_is_never_written_while_its_process_may_live() -> None:
    row = in_state(ExecutionState.STOPPED)
    with pytest.raises(IntegrityError, match="execution_stopped_means_process_gone"), transaction.atomic():
        Execution.objects.filter(pk=row.pk).update(pid=4711, process_gone_at=None)


def test_an_origin_has_one_live_execution() -> None:
    in_state(ExecutionState.QUEUED)
    with pytest.raises(IntegrityError, match="one_live_execution_per_origin"), transaction.atomic():
        in_state(ExecutionState.QUEUED)


def test_events_are_never_changed() -> None:
    event = ExecutionEvent.objects.create(execution=in_state(ExecutionState.RUNNING), sequence=1, kind="text")
    with pytest.raises(DatabaseError), transaction.atomic():
        ExecutionEvent.objects.filter(pk=event.pk).update(kind="error")


def test_a_sequence_is_used_once() -> None:
    event = ExecutionEvent.objects.create(execution=in_state(ExecutionState.RUNNING), sequence=1, kind="text")
    with pytest.raises(IntegrityError, match="one_event_per_sequence"), transaction.atomic():
        ExecutionEvent.objects.create(execution=event.execution, sequence=1, kind="text")
