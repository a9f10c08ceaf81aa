"""The sweep finds what dead workers left, and never takes what a living one holds."""

import datetime as dt
import subprocess

import pytest

from budgets.models import Reservation
from execution import actions
from execution.actions import sweeping
from execution.models import Execution, Worker
from execution.shim import processes
from execution.states import EventKind, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from tests.factories import execution as made
from tests.factories.execution import BY


def dead_worker(**fields: object) -> Worker:
    """A worker of this machine whose process is over."""
    process = subprocess.Popen(["sleep", "60"])
    facts = processes.facts(process.pid)
    process.kill()
    process.wait()
    return made.WorkerFactory(pid=facts.pid, pid_started_at=facts.started_at, **fields)


def expire(execution: Execution) -> None:
    Execution.objects.filter(pk=execution.pk).update(lease_until=clock.db_now(-dt.timedelta(seconds=1)))


def row(execution: Execution) -> Execution:
    return Execution.objects.get(pk=execution.pk)


def test_a_lease_that_lasts_is_left_alone() -> None:
    execution = made.running()
    assert actions.sweep() == 0
    assert row(execution).state == ExecutionState.RUNNING


def test_what_was_lost_before_its_release_is_queued_again_for_free() -> None:
    execution = made.claimed()
    expire(execution)
    assert actions.sweep() == 1
    found = row(execution)
    assert (found.state, found.epoch, found.spend_stage) == (ExecutionState.QUEUED, 1, SpendStage.RESERVED)


def test_what_was_lost_after_its_release_is_never_repeated() -> None:
    execution = made.running()
    expire(execution)
    assert actions.sweep() == 1
    found = row(execution)
    assert (found.state, found.outcome, found.spend_stage) == (
        ExecutionState.LOST,
        OutcomeClass.LOST,
        SpendStage.UNKNOWN,
    )
    assert "ask again" in found.sentence
    assert Reservation.objects.get(pk=found.reservation_id).state == "uncertain"
    assert actions.sweep() == 0


def test_whoever_comes_late_to_a_lost_turn_revives_nothing() -> None:
    """Two find it at the same moment; the second believes that it is still to be closed."""
    late = made.running()
    assert actions.close_as_lost(execution=row(late), by=BY) is not None
    assert actions.close_as_lost(execution=late, by=BY) is None
    assert Reservation.objects.get(pk=late.reservation_id).state == "uncertain"


UNCOUNTED = [
    *((name, stop, ("unknown", "unknown", "uncertain")) for name in ("claude", "codex") for stop in (True, False)),
    ("mock", True, ("settled", "", "settled")),  # it counts as it goes: what it has not counted, it has not spent
    ("mock", False, ("unknown", "", "uncertain")),
]


@pytest.mark.parametrize(("provider", "stop", "booked"), UNCOUNTED)
def test_of_what_was_lost_uncounted_the_cost_is_unknown_also_if_somebody_wanted_it_stopped(
    provider: str, stop: bool, booked: tuple[str, str, str]
) -> None:
    execution = made.running(made.queued(provider=provider), process=made.dead_process())
    actions.record_events(execution=execution, first_sequence=1, lines=[(EventKind.TEXT, {"text": "Half an ans"})])
    if stop:
        actions.request_stop(execution_id=execution.pk, reason="enough", by=BY)
    actions.close_as_lost(execution=row(execution), by=BY)
    found = row(execution)
    assert found.outcome == (OutcomeClass.STOPPED if stop else OutcomeClass.LOST)
    assert (found.answer, found.cost_nano_usd) == ("Half an ans", None)
    held = Reservation.objects.get(pk=found.reservation_id).state
    assert (found.spend_stage, found.cost_basis, held) == booked


def test_a_worker_that_died_here_is_buried_without_waiting_for_its_lease() -> None:
    worker = dead_worker()
    execution = made.running(worker=worker)
    actions.sweep()
    assert row(execution).state == ExecutionState.LOST
    worker.refresh_from_db()
    assert worker.stopped_at is not None


def test_nothing_is_taken_while_the_process_tree_of_a_dead_worker_still_lives() -> None:
    worker = dead_worker()
    execution = made.claimed(worker=worker)
    shim = subprocess.Popen(["sleep", "60"])
    try:
        actions.release(execution=execution, process=processes.facts(shim.pid), by=BY)
        actions.sweep()
        assert row(execution).state == ExecutionState.RUNNING
    finally:
        shim.kill()
        shim.wait()
    actions.sweep()
    found = row(execution)
    assert (found.state, found.process_gone_at is not None) == (ExecutionState.LOST, True)


def test_a_worker_elsewhere_is_believed_until_it_has_been_silent_for_long() -> None:
    worker = dead_worker(boot_id="another-machine")
    execution = made.running(worker=worker)
    actions.sweep()
    assert row(execution).state == ExecutionState.RUNNING
    Worker.objects.filter(pk=worker.pk).update(beat_at=clock.db_now(-dt.timedelta(minutes=2)))
    actions.sweep()
    assert row(execution).state == ExecutionState.LOST


def test_a_beat_renews_only_what_the_worker_really_holds() -> None:
    worker = made.WorkerFactory()
    held, forgotten = made.running(worker=worker), made.running(worker=worker)
    expire(held)
    expire(forgotten)
    assert actions.beat(worker_id=worker.pk, held=[held])
    actions.sweep()
    assert (row(held).state, row(forgotten).state) == (ExecutionState.RUNNING, ExecutionState.LOST)


def test_a_buried_worker_hears_it_at_its_next_beat() -> None:
    worker = dead_worker()
    actions.sweep()
    assert not actions.beat(worker_id=worker.pk, held=[])


def test_an_order_ends_what_waits_even_when_no_worker_is_there() -> None:
    execution, other = made.queued(), made.queued()
    governance_actions.stop(
        scope=KillScope.IDENTITY, scope_id=execution.identity.slug, mode=KillMode.STOP, reason="fire drill", by=BY
    )
    assert actions.sweep() == 1
    found = row(execution)
    assert (found.state, found.outcome) == (ExecutionState.STOPPED, OutcomeClass.GOVERNANCE)
    assert row(other).state == ExecutionState.QUEUED


def test_an_execution_that_cannot_be_closed_does_not_hold_up_the_others(monkeypatch) -> None:
    poison, other = made.running(), made.running()
    expire(poison)
    expire(other)
    close = sweeping.close_lost

    def stumble(rows, row, **fields):
        if row.pk == poison.pk:
            raise ValueError("nobody thought of this")
        return close(rows, row, **fields)

    monkeypatch.setattr(sweeping, "close_lost", stumble)
    actions.sweep()
    assert row(poison).state == ExecutionState.RUNNING
    assert row(other).state == ExecutionState.LOST
