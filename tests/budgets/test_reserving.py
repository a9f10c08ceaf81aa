"""Reserving: a run holds a slice of every budget it counts on, or is told who refuses, how much is left and until when."""

import pytest
import time_machine
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from budgets import actions
from budgets.actions.windows import open_windows
from budgets.models import BudgetWindow, Reservation
from budgets.policies import SLICE, BudgetRefused
from budgets.states import Metric, Mode, Period, RefusalKind, ReservationState
from fleet.kernel import clock
from fleet.kernel.exceptions import StateConflict
from fleet.kernel.models import JournalEntry
from identities.permissions import Role
from tests.budgets import scenes
from tests.budgets.scenes import (
    ADA,
    BOB,
    BY,
    bot_budget,
    fleet_budget,
    leg,
    metric_budget,
    reserve,
    settle,
    use,
    window,
)
from tests.factories.budgets import CENT, BudgetFactory
from tests.factories.identities import PersonFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("prices")]


def test_a_run_holds_one_slice_of_every_budget_of_its_scopes():
    fleet, ada, bob = fleet_budget(), bot_budget("ada"), bot_budget("bob")
    reservation = reserve()
    assert reservation.state == ReservationState.HELD
    assert {row.budget_id: row.held for row in reservation.legs.all()} == {fleet.pk: 25 * CENT, ada.pk: 25 * CENT}
    assert window(fleet).pending == window(ada).pending == 25 * CENT
    assert not BudgetWindow.objects.filter(budget=bob).exists()


def test_a_persons_budget_counts_when_the_person_is_known():
    budget = BudgetFactory(scope_kind="person", scope_id="7", limit_amount=10 * CENT)
    reserve("a", ADA | {"person": "7"})
    reserve("b", ADA)
    assert window(budget).pending == 10 * CENT


def test_a_reservation_is_journaled_with_what_it_holds():
    budget = fleet_budget()
    reservation = reserve()
    entry = JournalEntry.objects.get(event="budgets.reservation.held")
    assert entry.subject_id == str(reservation.pk)
    assert entry.details["held"] == {str(budget.pk): 25 * CENT}


def test_repeating_an_attempt_holds_nothing_more():
    budget = fleet_budget(cents=30)
    assert reserve().pk == reserve().pk
    assert window(budget).pending == 25 * CENT
    assert JournalEntry.objects.filter(event="budgets.reservation.held").count() == 1


def test_a_repeated_attempt_is_not_refused_for_what_it_holds_itself():
    fleet_budget(cents=25)
    assert reserve().pk == reserve().pk


def test_without_any_budget_an_attempt_is_still_made_once():
    assert reserve().pk == reserve().pk
    assert not reserve().legs.exists()


def test_an_attempt_cannot_be_used_again_for_something_else():
    fleet_budget()
    reserve("turn:1", ADA)
    with pytest.raises(StateConflict) as conflict:
        reserve("turn:1", BOB)
    assert conflict.value.code == "idempotency_mismatch"


def test_what_is_left_of_a_budget_is_enough_when_it_is_less_than_a_slice():
    fleet, ada = fleet_budget(cents=100), bot_budget("ada", cents=10)
    reservation = reserve()
    assert leg(reservation, fleet).held == leg(reservation, ada).held == 10 * CENT


class TestRefusals:
    def test_waiting_helps_while_runs_in_progress_hold_the_rest(self):
        fleet_budget(cents=25, name="Fleet, per day")
        reserve("a")
        with pytest.raises(BudgetRefused) as refused:
            reserve("b")
        assert refused.value.code == RefusalKind.WAIT
        assert refused.value.budget == "Fleet, per day"
        assert refused.value.headroom == 0
        assert "hold $0.25 of its $0.25" in refused.value.sentence
        assert "Try again when one of them has ended." in refused.value.sentence

    @time_machine.travel("2026-11-22T10:00:00Z", tick=False)
    def test_what_is_spent_comes_back_at_the_reset_in_the_budgets_own_time(self):
        budget = fleet_budget(cents=20, name="Fleet, per day", timezone="Europe/Berlin")
        use(reserve("a"), 20)
        with pytest.raises(BudgetRefused) as refused:
            reserve("b")
        assert refused.value.code == RefusalKind.SPENT
        assert refused.value.resets_at == window(budget).ends_at
        assert "$0.20 of $0.20 is used. It starts anew on 23 Nov 2026, 00:00 CET." in refused.value.sentence

    def test_a_lifetime_budget_never_comes_back(self):
        fleet_budget(cents=20, period=Period.LIFETIME)
        use(reserve("a"), 20)
        with pytest.raises(BudgetRefused) as refused:
            reserve("b")
        assert refused.value.resets_at is None
        assert "It never starts anew." in refused.value.sentence

    def test_a_limit_below_the_smallest_hold_is_too_small_for_any_run(self):
        BudgetFactory(limit_amount=CENT // 2)
        with pytest.raises(BudgetRefused) as refused:
            reserve()
        assert refused.value.code == RefusalKind.TOO_BIG

    def test_a_model_without_a_price_is_refused_before_any_budget_is_asked(self):
        fleet_budget()
        with pytest.raises(BudgetRefused) as refused:
            reserve(model="gpt-oracle-9")
        assert refused.value.code == RefusalKind.UNKNOWN_PRICE
        assert "gpt-oracle-9" in refused.value.sentence
        assert not Reservation.objects.exists()

    def test_the_refusal_names_people_who_can_raise_the_budget_and_nobody_else(self):
        PersonFactory(username="alice", roles=[Role.ADMIN])
        PersonFactory(username="bruno", roles=[Role.OPERATOR])
        PersonFactory(username="carla", roles=[Role.ADMIN], is_active=False)
        fleet_budget(cents=0)
        with pytest.raises(BudgetRefused, match="alice can raise it") as refused:
            reserve()
        assert "bruno" not in refused.value.sentence
        assert "carla" not in refused.value.sentence

    def test_of_several_blocking_budgets_the_one_that_blocks_longest_is_named(self):
        bot_budget("ada", cents=10, name="Today")
        # On the last day of a month, the day and the month end together.
        bot_budget("ada", cents=10, name="A hundred hours", period=Period.ROLLING, hours=100)
        use(reserve("a"), 10)
        with pytest.raises(BudgetRefused) as refused:
            reserve("b")
        assert refused.value.budget == "A hundred hours"

    def test_nothing_is_held_anywhere_when_one_budget_refuses(self):
        fleet, _ = fleet_budget(), bot_budget("ada", cents=0)
        with pytest.raises(BudgetRefused):
            reserve()
        assert window(fleet).pending == 0
        assert not Reservation.objects.exists()

    def test_one_bots_refusal_is_no_other_bots(self):
        fleet_budget(), bot_budget("ada", cents=0), bot_budget("bob")
        with pytest.raises(BudgetRefused):
            reserve("a", ADA)
        assert reserve("b", BOB).state == ReservationState.HELD

    def test_the_callers_transaction_stays_usable_for_its_own_record(self):
        fleet_budget(cents=0)
        with transaction.atomic():
            with pytest.raises(BudgetRefused):
                reserve()
            assert JournalEntry.objects.count() == 0

    def test_the_api_gets_the_facts_beside_the_sentence(self):
        fleet_budget(cents=25, name="Fleet, per day")
        reserve("a")
        with pytest.raises(BudgetRefused) as refused:
            reserve("b")
        assert refused.value.status == 402
        facts = refused.value.as_dict()
        assert facts["code"] == "wait"
        assert facts["budget"] == "Fleet, per day"
        assert facts["headroom"] == "0"
        assert facts["resets_at"]


class TestModes:
    @pytest.mark.parametrize("mode", [Mode.SOFT, Mode.OBSERVE])
    def test_only_hard_budgets_refuse(self, mode):
        budget = fleet_budget(cents=0, mode=mode)
        reserve()
        assert window(budget).pending == 25 * CENT

    def test_a_budget_that_is_switched_off_neither_limits_nor_counts(self):
        budget = fleet_budget(cents=25)
        reserve("before")
        actions.change_budget(budget_id=budget.pk, by=BY, active=False)
        assert not reserve("after").legs.exists()
        assert window(budget).pending == 25 * CENT


class TestMetrics:
    @pytest.mark.parametrize("metric", list(Metric))
    def test_each_metric_holds_a_slice_of_its_own(self, metric):
        budget = metric_budget(metric, limit=10**12)
        assert leg(reserve(), budget).held == SLICE[metric]

    def test_a_budget_of_runs_counts_runs(self):
        budget = metric_budget(Metric.RUNS, limit=2)
        use(reserve("a"), 1)
        reserve("b")
        assert (window(budget).posted, window(budget).pending) == (1, 1)
        with pytest.raises(BudgetRefused, match="Runs in progress hold 1 run of its 2 runs"):
            reserve("c")

    def test_a_free_model_needs_no_money_but_counts_its_tokens_and_runs(self):
        money, runs = fleet_budget(cents=0), metric_budget(Metric.RUNS, limit=1)
        reservation = reserve(model="free")
        assert leg(reservation, money).held == 0
        assert leg(reservation, runs).held == 1


class TestCalendar:
    def test_a_new_day_is_a_new_window(self):
        budget = fleet_budget(cents=20)
        with time_machine.travel("2026-11-22T23:59:00Z", tick=False):
            first = reserve("a")
            use(first, 20)
            settle(first)
        with time_machine.travel("2026-11-23T00:00:00Z", tick=False):
            reserve("b")
        assert [row.posted for row in BudgetWindow.objects.filter(budget=budget)] == [20 * CENT, 0]

    def test_another_timezone_applies_from_the_next_window_and_leaves_no_gap(self):
        budget = fleet_budget()
        with time_machine.travel("2026-11-22T12:00:00Z", tick=False):
            reserve("a")
        actions.change_budget(budget_id=budget.pk, by=BY, timezone="America/New_York")
        with time_machine.travel("2026-11-22T23:00:00Z", tick=False):
            reserve("b")
        with time_machine.travel("2026-11-23T02:00:00Z", tick=False):
            reserve("c")
        first, second = BudgetWindow.objects.filter(budget=budget)
        assert first.ends_at == second.starts_at
        assert second.ends_at.isoformat() == "2026-11-23T05:00:00+00:00"

    def test_a_window_that_another_run_makes_at_that_very_moment_still_limits(self):
        budget = fleet_budget(cents=25)
        other_run = []

        def make_the_window(execute, sql, *arguments):
            result = execute(sql, *arguments)
            if "in_force" in sql and not other_run:
                other_run.append(open_windows([budget.pk], clock.now()))
            return result

        with connection.execute_wrapper(make_the_window):
            reservation = reserve()
        assert other_run
        assert leg(reservation, budget).held == 25 * CENT

    def test_a_budget_made_at_noon_knows_the_morning(self):
        reservation = reserve("a")
        use(reservation, 30)
        settle(reservation)
        fleet, bob = fleet_budget(cents=90), bot_budget("bob")
        reserve("b"), reserve("c", BOB)
        assert (window(fleet).opening, window(fleet).posted) == (30 * CENT, 30 * CENT)
        assert window(bob).posted == 0


def test_two_budgets_cost_four_statements_and_one_transaction():
    fleet_budget(), bot_budget("ada")
    reserve("warm-up")
    with CaptureQueriesContext(connection) as queries:
        reserve("measured")
    assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) == 4


def test_the_books_are_right_after_all_of_it():
    fleet_budget(), bot_budget("ada", mode=Mode.SOFT), metric_budget(Metric.TOKENS, 10**6)
    for number in range(3):
        reserve(f"turn:{number}")
    scenes.assert_books_are_right()
    scenes.assert_never_above_limits()
