"""Metering: what a run reports is posted once, whatever is repeated, and its slice is topped up as long as there is room."""

import datetime as dt

import pytest
import time_machine
from django.db import DatabaseError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets import actions
from budgets.models import BudgetWindow, TokenLedger
from budgets.ports import UsageUnits
from budgets.states import LedgerKind, Metric, Mode, PriceBasis, ReservationState, Unit
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, NotFound
from fleet.kernel.models import JournalEntry
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from tests.budgets import scenes
from tests.budgets.scenes import BY, bot_budget, fleet_budget, leg, metric_budget, reserve, settle, use, window
from tests.factories.budgets import CENT
from tests.factories.identities import IdentityFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("prices")]


def posted(execution: int = 1) -> dict[str, int]:
    """The quantities of an execution's messages by unit."""
    totals: dict[str, int] = {}
    for row in TokenLedger.objects.filter(execution_id=execution).exclude(unit=Unit.RUN):
        totals[row.unit] = totals.get(row.unit, 0) + row.quantity
    return totals


def test_what_was_used_moves_from_held_to_posted():
    fleet, ada = fleet_budget(), bot_budget()
    metered = use(reserve(), output=5)
    assert (metered.cost_nano_usd, metered.total_nano_usd, metered.exhausted) == (5 * CENT, 5 * CENT, False)
    for budget in (fleet, ada):
        assert (window(budget).posted, window(budget).pending) == (5 * CENT, 20 * CENT)


def test_every_unit_of_a_message_is_a_row_with_its_price():
    usage = {"input_uncached": 1, "cache_read": 2, "cache_write_5m": 3, "cache_write_1h": 4, "web_searches": 6}
    use(reserve(), output=5, **usage)
    rows = TokenLedger.objects.exclude(unit=Unit.RUN)
    assert {row.unit: row.quantity for row in rows} == usage | {"output": 5}
    assert {row.price.model for row in rows} == {"penny"}
    assert {row.identity_slug for row in rows} == {"ada"}


def test_thinking_is_noted_as_part_of_the_output_and_not_counted_twice():
    use(reserve(), output=5, reasoning=3)
    row = TokenLedger.objects.get(unit=Unit.OUTPUT)
    assert (row.quantity, row.reasoning) == (5, 3)


class TestRepetition:
    def test_the_same_report_again_changes_nothing(self):
        budget, reservation = fleet_budget(), reserve()
        use(reservation, 5)
        again = use(reservation, 5)
        assert (again.cost_nano_usd, again.total_nano_usd, again.basis) == (0, 5 * CENT, PriceBasis.PRICED)
        assert window(budget).posted == 5 * CENT

    def test_a_higher_report_of_the_same_message_posts_the_difference(self):
        reservation = reserve()
        use(reservation, 5)
        assert use(reservation, 8).cost_nano_usd == 3 * CENT
        rows = TokenLedger.objects.filter(unit=Unit.OUTPUT).values_list("revision", "kind", "quantity")
        assert list(rows) == [(0, LedgerKind.USAGE, 5), (1, LedgerKind.ADJUSTMENT, 3)]

    def test_a_lower_report_that_comes_late_changes_nothing(self):
        reservation = reserve()
        use(reservation, 8)
        assert use(reservation, 5).cost_nano_usd == 0

    @settings(deadline=None, max_examples=25)
    @given(st.lists(st.integers(0, 20), min_size=1, max_size=8))
    def test_whatever_the_order_the_highest_report_counts(self, reports):
        with transaction.atomic():
            reservation = reserve("any order")
            for output in reports:
                metered = use(reservation, output)
            assert metered.total_nano_usd == max(reports) * CENT
            transaction.set_rollback(True)

    def test_one_call_may_carry_the_same_message_several_times(self):
        reservation = reserve()
        usages = [UsageUnits("m1", "penny", output=output) for output in (2, 7, 4)]
        metered = actions.meter(
            reservation_id=reservation.pk, execution_id=1, usages=usages, provider="test", billing="api"
        )
        assert metered.total_nano_usd == 7 * CENT

    def test_messages_of_different_executions_are_different_messages(self):
        reservation = reserve()
        use(reservation, 5, execution=1)
        assert use(reservation, 5, execution=2).total_nano_usd == 10 * CENT

    def test_a_run_is_counted_once_however_many_messages_it_has(self):
        budget, reservation = metric_budget(Metric.RUNS, 10), reserve()
        for number in range(3):
            use(reservation, 1, f"m{number}")
        assert (window(budget).posted, window(budget).pending) == (1, 0)


class TestTopUps:
    def test_a_slice_is_topped_up_once_four_fifths_of_it_are_used(self):
        budget, reservation = fleet_budget(), reserve()
        use(reservation, 19, "m1")
        assert leg(reservation, budget).held == 6 * CENT
        use(reservation, 1, "m2")
        assert leg(reservation, budget).held == 25 * CENT
        assert JournalEntry.objects.filter(event="budgets.reservation.topped_up").count() == 1

    def test_a_run_is_told_to_stop_when_its_budget_cannot_top_it_up(self):
        fleet_budget(cents=30)
        reservation = reserve()
        assert not use(reservation, 15, "m1").exhausted
        assert not use(reservation, 6, "m2").exhausted  # 9 cents are left, and it holds all of them
        assert use(reservation, 8, "m3").exhausted

    def test_it_is_told_again_when_it_asks_again(self):
        fleet_budget(cents=25)
        reservation = reserve()
        assert use(reservation, 24).exhausted
        assert use(reservation, 24).exhausted

    def test_it_may_go_on_when_another_run_gives_its_hold_back(self):
        fleet_budget(cents=50)
        first, second = reserve("a"), reserve("b")
        assert use(first, 24).exhausted
        settle(second)
        assert not use(first, 24).exhausted

    @pytest.mark.parametrize("mode", [Mode.SOFT, Mode.OBSERVE])
    def test_a_budget_that_is_not_hard_never_stops_a_run(self, mode):
        fleet_budget(cents=10, mode=mode)
        assert not use(reserve(), 500).exhausted

    def test_tokens_are_topped_up_like_money(self):
        budget = metric_budget(Metric.TOKENS, 10_000_000)
        reservation = reserve(model="free")
        use(reservation, 240_000, model="free")
        assert leg(reservation, budget).held == 250_000

    def test_nothing_is_topped_up_against_a_kill_order(self):
        IdentityFactory(slug="ada")
        fleet_budget()
        reservation = reserve()
        order = governance_actions.stop(
            scope=KillScope.FLEET, scope_id="", mode=KillMode.STOP, reason="drill", by=Actor.system("test")
        )
        assert use(reservation, 24).exhausted
        governance_actions.lift(order=order, reason="over", by=Actor.system("test"))
        assert not use(reservation, 24).exhausted


class TestOverruns:
    def test_the_truth_is_posted_and_the_overrun_marked(self):
        budget, reservation = fleet_budget(cents=30), reserve()
        assert use(reservation, 40).exhausted
        assert (window(budget).posted, window(budget).pending, window(budget).overrun) == (40 * CENT, 0, 15 * CENT)
        reservation.refresh_from_db()
        assert reservation.overran
        assert JournalEntry.objects.get(event="budgets.reservation.overran").details["overrun"] == {
            str(budget.pk): 15 * CENT
        }

    def test_an_overrun_blocks_new_runs(self):
        fleet_budget(cents=30)
        use(reserve("a"), 40)
        with pytest.raises(actions.BudgetRefused):
            reserve("b")

    def test_a_free_run_that_turns_out_to_cost_something_is_counted_and_stopped(self):
        budget = fleet_budget(cents=3)
        metered = use(reserve(model="free"), 5, model="penny")
        assert metered.exhausted
        assert window(budget).posted == 5 * CENT


class TestPricesOfReports:
    def test_a_model_without_a_price_is_counted_as_the_dearest_and_never_as_nothing(self):
        budget = fleet_budget(cents=1000)
        metered = use(reserve(), 1, model="gpt-oracle-9")
        assert (metered.cost_nano_usd, metered.basis) == (100 * CENT, PriceBasis.UNKNOWN)
        assert window(budget).posted == 100 * CENT
        assert JournalEntry.objects.get(event="budgets.price.missing").details["model"] == "gpt-oracle-9"

    def test_a_total_is_as_certain_as_the_least_certain_of_its_messages(self):
        fleet_budget(cents=1000)
        reservation = reserve()
        use(reservation, 1, "m1", model="gpt-oracle-9")
        assert use(reservation, 5, "m2").basis == PriceBasis.UNKNOWN
        assert use(reservation, 0, "m3", model="free").basis == PriceBasis.UNKNOWN

    def test_a_message_keeps_the_price_it_was_first_counted_at(self):
        reservation = reserve()
        use(reservation, 5)
        scenes.price_list()
        use(reservation, 6)
        assert TokenLedger.objects.filter(unit=Unit.OUTPUT).values("price").distinct().count() == 1

    def test_a_free_model_says_that_it_is_free(self):
        assert use(reserve(model="free"), 5, model="free").basis == PriceBasis.FREE

    def test_a_subscription_is_imputed_but_not_billed(self):
        imputed, billed = fleet_budget(), metric_budget(Metric.BILLED, 100 * CENT)
        use(reserve(), 5, billing="subscription")
        assert (window(imputed).posted, window(billed).posted) == (5 * CENT, 0)


class TestTime:
    def test_a_message_lands_in_the_window_of_its_own_time(self):
        budget = fleet_budget()
        with time_machine.travel("2026-11-22T23:59:00Z", tick=False):
            reservation = reserve()
        with time_machine.travel("2026-11-23T00:01:00Z", tick=False):
            use(reservation, 3, "late report", at=dt.datetime(2026, 11, 22, 23, 59, 30, tzinfo=dt.UTC))
            use(reservation, 4, "new message")
        assert [row.posted for row in BudgetWindow.objects.filter(budget=budget)] == [3 * CENT, 4 * CENT]
        assert window(budget).overrun == 0

    def test_a_hold_moves_over_midnight_and_is_in_one_window_at_a_time(self):
        budget = fleet_budget()
        with time_machine.travel("2026-11-22T23:59:00Z", tick=False):
            reservation = reserve()
        with time_machine.travel("2026-11-23T00:01:00Z", tick=False):
            use(reservation, 4)
        assert [row.pending for row in BudgetWindow.objects.filter(budget=budget)] == [0, 21 * CENT]

    def test_a_hold_moves_only_as_far_as_the_new_window_has_room(self):
        budget = fleet_budget(cents=30)
        with time_machine.travel("2026-11-22T23:59:00Z", tick=False):
            old = reserve("old")
        with time_machine.travel("2026-11-23T00:01:00Z", tick=False):
            reserve("new")
            use(old, 1)
        assert window(budget).pending == (25 + 4) * CENT
        scenes.assert_never_above_limits()

    def test_a_time_in_the_future_counts_as_now(self):
        budget, reservation = fleet_budget(), reserve()
        use(reservation, 3, at=dt.datetime(2999, 1, 1, tzinfo=dt.UTC))
        assert BudgetWindow.objects.get(budget=budget).posted == 3 * CENT


class TestLateReports:
    def test_a_report_after_the_end_is_posted_and_tells_the_worker_to_stop(self):
        budget, reservation = fleet_budget(), reserve()
        settle(reservation)
        assert use(reservation, 5).exhausted
        assert (window(budget).posted, window(budget).overrun) == (5 * CENT, 5 * CENT)

    def test_a_report_brings_an_uncertain_run_back_to_life(self):
        budget, reservation = fleet_budget(), reserve()
        actions.hold_uncertain(reservation_id=reservation.pk, by=BY)
        assert not use(reservation, 24).exhausted
        reservation.refresh_from_db()
        assert reservation.state == ReservationState.HELD
        assert (window(budget).posted, window(budget).pending) == (24 * CENT, 25 * CENT)
        assert JournalEntry.objects.filter(event="budgets.reservation.revived").exists()

    def test_without_a_reservation_nothing_can_be_reported(self):
        reservation = reserve()
        reservation.pk += 1
        with pytest.raises(NotFound):
            use(reservation, 1)


@pytest.mark.parametrize(
    "wrong",
    [{"output": -1}, {"reasoning": -1}, {"cache_read": 10**12}, {"message_id": ""}, {"message_id": "m" * 121}],
)
def test_usage_that_cannot_be_true_is_refused(wrong):
    with pytest.raises(Invalid):
        UsageUnits(**({"message_id": "m1", "model": "penny"} | wrong))


def test_the_ledger_can_neither_be_changed_nor_emptied():
    use(reserve(), 5)
    for change in (
        lambda: TokenLedger.objects.update(quantity=0),
        lambda: TokenLedger.objects.all()._raw_delete(using="default"),
    ):
        with pytest.raises(DatabaseError, match="Cannot"), transaction.atomic():
            change()
    assert posted() == {"output": 5}


def test_the_fleet_total_is_the_sum_of_its_bots():
    fleet, ada, bob = fleet_budget(1000), bot_budget("ada", 1000), bot_budget("bob", 1000)
    use(reserve("a", scenes.ADA), 7, execution=1)
    use(reserve("b", scenes.BOB), 9, execution=2)
    assert window(fleet).posted == window(ada).posted + window(bob).posted == 16 * CENT
    scenes.assert_books_are_right()
