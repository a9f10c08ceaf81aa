"""What waits for a worker stays paid for, however long that takes, and what has lost its reservation spends nothing."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from budgets import actions as budget_actions
from budgets import queries as budget_queries
from budgets.models import BudgetWindow, Reservation
from execution import actions, queries
from execution.actions import waiting
from execution.models import Execution
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock
from fleet.kernel.exceptions import Fenced
from fleet.kernel.models import JournalEntry
from tests.execution.running import Run
from tests.factories import execution as made
from tests.factories.execution import BY

SWEEPS = {"execution": actions.sweep, "budgets": budget_actions.sweep_reservations}
AT_ONCE = dt.timedelta()


def hold(execution: Execution) -> Reservation:
    return Reservation.objects.get(pk=execution.reservation_id)


def row(execution: Execution) -> Execution:
    return Execution.objects.get(pk=execution.pk)


def end(execution: Execution, field: str = "lease_until", ago: dt.timedelta = dt.timedelta(seconds=1)) -> Execution:
    """Let that moment of the reservation be over, by the database's clock."""
    Reservation.objects.filter(pk=execution.reservation_id).update(**{field: clock.db_now(-ago)})
    return execution


def lapsed() -> Execution:
    """It waits, nobody has swept, and its lease is over."""
    return end(made.queued())


def uncertain() -> Execution:
    """It waits, and the budgets' sweep has seen no sign of life."""
    execution = lapsed()
    budget_actions.sweep_reservations()
    assert hold(execution).state == "uncertain"
    return execution


def overdue() -> Execution:
    """Likewise, and everything was down for a day since."""
    return end(uncertain(), "uncertain_until")


def released() -> Execution:
    """Likewise, and the budgets' sweep was the first to come back."""
    execution = overdue()
    budget_actions.sweep_reservations()
    assert hold(execution).state == "released"
    return execution


def claim(execution: Execution) -> Execution | None:
    return actions.claim(
        execution_id=execution.pk, epoch=row(execution).epoch, worker_id=made.WorkerFactory().pk, by=BY
    )


class TestWhatWaits:
    def test_keeps_its_hold_however_long_nobody_takes_it(self) -> None:
        execution = lapsed()
        for _ in range(3):
            actions.sweep()
            budget_actions.sweep_reservations()
            assert hold(execution).state == "held"
            end(execution)
        assert not JournalEntry.objects.filter(event="budgets.reservation.uncertain").exists()
        assert row(execution).state == ExecutionState.QUEUED

    def test_is_written_only_when_half_of_its_lease_is_over(self) -> None:
        fresh, ageing = made.queued(), end(made.queued(), ago=-budget_actions.LEASE / 2 + dt.timedelta(seconds=1))
        before = hold(fresh).lease_until
        actions.sweep()
        assert hold(fresh).lease_until == before
        assert hold(ageing).lease_until > before

    def test_is_renewed_in_portions_the_nearest_end_first(self, monkeypatch) -> None:
        monkeypatch.setattr(waiting, "MOST_RENEWED", 1)
        later, sooner = lapsed(), end(made.queued(), ago=dt.timedelta(minutes=1))
        actions.sweep()
        budget_actions.sweep_reservations()
        assert (hold(sooner).state, hold(later).state) == ("held", "uncertain")

    @pytest.mark.parametrize(("begins", "statements"), [(made.queued, 1), (lapsed, 2)])
    def test_is_renewed_in_as_few_statements_as_there_may_be(
        self, begins: Callable[[], Execution], statements: int
    ) -> None:
        """One to look, one to renew, however many wait."""
        executions = [begins() for _ in range(3)]
        sent: list[str] = []

        def note(execute, sql, *rest):
            sent.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            waiting._renew()
        assert len([sql for sql in sent if "SAVEPOINT" not in sql]) == statements
        budget_actions.sweep_reservations()
        assert {hold(execution).state for execution in executions} == {"held"}

    def test_is_kept_by_nobody_once_a_worker_has_it(self) -> None:
        """Then the worker's beat does it, and its silence means something."""
        execution = end(made.claimed())
        actions.sweep()
        budget_actions.sweep_reservations()
        assert hold(execution).state == "uncertain"
        assert waiting._look_after(execution.pk) is False
        assert hold(execution).state == "uncertain"

    def test_is_held_again_when_nobody_had_swept(self) -> None:
        execution = uncertain()
        assert actions.sweep() == 1
        found = hold(execution)
        assert (found.state, found.uncertain_until) == ("held", None)
        assert budget_queries.overview().runs_uncertain == 0
        assert JournalEntry.objects.get(event="budgets.reservation.revived").actor_name == "sweep"
        budget_actions.sweep_reservations()
        assert hold(execution).state == "held"
        assert made.claimed(execution).state == ExecutionState.STARTING

    @pytest.mark.parametrize("begins", [lapsed, uncertain, overdue])
    def test_is_answered_once_a_worker_is_there(self, run: Run, begins: Callable[[], Execution]) -> None:
        execution = begins()
        actions.sweep()
        found = run(execution)
        assert (found.state, found.outcome) == (ExecutionState.SUCCEEDED, OutcomeClass.OK)
        assert hold(execution).state == "settled"

    def test_ends_unspent_when_its_hold_went_back(self) -> None:
        execution = released()
        assert actions.sweep() == 1
        found = row(execution)
        assert (found.state, found.outcome, found.cause) == (ExecutionState.FAILED, OutcomeClass.BUDGET, "hold_ended")
        assert (found.spend_stage, found.released_at, found.cost_nano_usd) == (SpendStage.NONE, None, None)
        assert "nothing was spent" in found.sentence and "used up" not in found.sentence
        assert set(BudgetWindow.objects.values_list("posted", "pending")) == {(0, 0)}
        assert actions.sweep() == 0

    def test_without_a_reservation_is_left_alone(self) -> None:
        execution = made.queued(reservation_id=None)
        assert actions.sweep() == 0
        assert made.claimed(execution).state == ExecutionState.STARTING


class TestTheOrderOfTheSweeps:
    @pytest.mark.parametrize("begins", [lapsed, uncertain, overdue])
    @pytest.mark.parametrize("order", itertools.permutations(SWEEPS), ids="-".join)
    def test_does_not_decide_whether_anything_is_spent_unpaid(
        self, begins: Callable[[], Execution], order: tuple[str, ...]
    ) -> None:
        execution = begins()
        for name in (*order, *order):
            SWEEPS[name]()
            taken = claim(execution)
            if taken is not None:
                assert hold(execution).state == "held"
                actions.requeue(execution=taken, by=BY, why="test")
        ended = begins is overdue and order[0] == "budgets"
        assert row(execution).state == (ExecutionState.FAILED if ended else ExecutionState.QUEUED)
        assert hold(execution).state == ("released" if ended else "held")


class TestTheClaim:
    @pytest.mark.parametrize("begins", [uncertain, overdue, released])
    def test_leaves_what_is_not_held_to_the_sweep(self, begins: Callable[[], Execution]) -> None:
        execution = begins()
        assert claim(execution) is None
        assert row(execution).state == ExecutionState.QUEUED
        assert queries.unclaimed(older_than=AT_ONCE, limit=9) == []

    def test_takes_what_is_held_although_nobody_has_swept_yet(self) -> None:
        assert made.claimed(lapsed()).state == ExecutionState.STARTING


class TestTheGate:
    def test_stays_shut_once_the_reservation_has_ended_and_the_execution_goes_back(self) -> None:
        execution = made.claimed()
        budget_actions.release(reservation_id=execution.reservation_id, by=BY)
        with pytest.raises(Fenced):
            actions.release(execution=execution, process=None, by=BY)
        found = row(execution)
        assert (found.state, found.spend_stage) == (ExecutionState.STARTING, SpendStage.RESERVED)
        Execution.objects.filter(pk=execution.pk).update(lease_until=clock.db_now(-dt.timedelta(seconds=1)))
        actions.sweep()
        assert (row(execution).state, row(execution).cause) == (ExecutionState.FAILED, "hold_ended")

    def test_opens_for_what_is_uncertain_since_its_slice_is_still_held(self) -> None:
        execution = end(made.claimed())
        budget_actions.sweep_reservations()
        actions.release(execution=execution, process=None, by=BY)
        assert row(execution).state == ExecutionState.RUNNING


@pytest.mark.django_db(transaction=True)
def test_a_sweep_does_not_wait_for_a_reservation_that_somebody_holds(table: None) -> None:
    busy, free = lapsed(), lapsed()
    with transaction.atomic():
        Reservation.objects.select_for_update().get(pk=busy.reservation_id)
        seen: list[str] = []

        def sweep() -> None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SET lock_timeout TO '5s'")
                waiting._renew()
                seen.append("done")
            finally:
                connection.close()

        thread = threading.Thread(target=sweep)
        thread.start()
        thread.join()
    budget_actions.sweep_reservations()
    assert (seen, hold(free).state, hold(busy).state) == (["done"], "held", "uncertain")
