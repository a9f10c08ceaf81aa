"""What the database itself refuses, whoever writes to it."""

import datetime as dt

import pytest
from django.db import DatabaseError, IntegrityError, transaction

from budgets.models import Reservation
from budgets.states import Billing, LedgerKind, Metric, Period, PriceBasis, Scope, Unit
from fleet.kernel import clock
from tests.factories.budgets import (
    CENT,
    DAY,
    BudgetAlertFactory,
    BudgetFactory,
    BudgetWindowFactory,
    PriceFactory,
    RateFactory,
    ReservationFactory,
    ReservationLegFactory,
    TokenLedgerFactory,
)

pytestmark = pytest.mark.django_db
HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("constraint", "factory", "fields"),
    [
        ("budget_limit_not_negative", BudgetFactory, {"limit_amount": -1}),
        ("budget_scope_named", BudgetFactory, {"scope_kind": Scope.FLEET, "scope_id": "ada"}),
        ("budget_scope_named", BudgetFactory, {"scope_kind": Scope.IDENTITY, "scope_id": "*"}),
        ("budget_scope_named", BudgetFactory, {"scope_kind": Scope.PERSON, "scope_id": ""}),
        ("budget_rolling_hours", BudgetFactory, {"period": Period.ROLLING}),
        ("budget_anchor_in_period", BudgetFactory, {"period": Period.WEEK, "anchor": 8}),
        ("budget_anchor_in_period", BudgetFactory, {"period": Period.MONTH, "anchor": 32}),
        ("budget_anchor_in_period", BudgetFactory, {"anchor": 0}),
        ("window_posted_not_negative", BudgetWindowFactory, {"posted": -1}),
        ("window_pending_not_negative", BudgetWindowFactory, {"pending": -1}),
        ("window_limit_not_negative", BudgetWindowFactory, {"limit_amount": -1}),
        ("window_shares_within_posted", BudgetWindowFactory, {"posted": 5, "overrun": 3, "opening": 3}),
        ("window_ends_after_start", BudgetWindowFactory, {"ends_at": DAY}),
        ("price_is_known", PriceFactory, {"basis": PriceBasis.UNKNOWN}),
        ("rate_not_negative", RateFactory, {"nano_usd": -1}),
        ("reservation_cost_not_negative", ReservationFactory, {"cost_nano_usd": -1}),
        ("reservation_ended_when_final", ReservationFactory, {"state": "settled"}),
        ("reservation_ended_when_final", ReservationFactory, {"ended_at": DAY}),
        ("reservation_uncertain_is_bounded", ReservationFactory, {"state": "uncertain"}),
        ("leg_not_negative", ReservationLegFactory, {"held": -1}),
        ("leg_not_negative", ReservationLegFactory, {"overrun": -1}),
        ("leg_held_within_grant", ReservationLegFactory, {"held": 26 * CENT}),
        ("ledger_adjusts_later", TokenLedgerFactory, {"kind": LedgerKind.ADJUSTMENT}),
        ("ledger_adjusts_later", TokenLedgerFactory, {"revision": 1}),
        ("ledger_only_grows", TokenLedgerFactory, {"quantity": -1}),
        ("ledger_only_grows", TokenLedgerFactory, {"reasoning": -1}),
        ("ledger_only_grows", TokenLedgerFactory, {"cost_nano_usd": -1, "billed_nano_usd": -1}),
        ("ledger_billed_as_paid", TokenLedgerFactory, {"billing": Billing.SUBSCRIPTION}),
        ("ledger_billed_as_paid", TokenLedgerFactory, {"billed_nano_usd": 0}),
        ("ledger_says_its_price", TokenLedgerFactory, {"price": None}),
        ("ledger_says_its_price", TokenLedgerFactory, {"unit": Unit.RUN}),
    ],
)
def test_a_row_that_cannot_be_true_is_refused(constraint, factory, fields):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        factory(**fields)


def test_a_row_that_can_be_true_is_not():
    BudgetFactory(scope_kind=Scope.PERSON, scope_id="7", metric=Metric.RUNS, period=Period.ROLLING, hours=5)
    BudgetWindowFactory(posted=6, overrun=3, opening=3)
    ReservationFactory(state="uncertain", uncertain_until=DAY)
    ReservationFactory(state="released", ended_at=DAY)
    ReservationLegFactory(held=0)
    TokenLedgerFactory(kind=LedgerKind.ADJUSTMENT, revision=1, quantity=0)
    TokenLedgerFactory(unit=Unit.RUN, price=None, cost_nano_usd=0, billed_nano_usd=0)


class TestOnlyOnce:
    def test_a_budgets_name_in_its_scope(self):
        BudgetFactory(name="Daily"), BudgetFactory(name="Daily", scope_kind=Scope.IDENTITY, scope_id="ada")
        with pytest.raises(IntegrityError, match="budget_name_once_per_scope"):
            BudgetFactory(name="Daily")

    def test_a_windows_start(self):
        window = BudgetWindowFactory()
        with pytest.raises(IntegrityError, match="window_once_per_start"):
            BudgetWindowFactory(budget=window.budget)

    def test_a_threshold_of_a_window(self):
        alert = BudgetAlertFactory()
        with pytest.raises(IntegrityError, match="alert_once_per_threshold"):
            BudgetAlertFactory(window=alert.window)

    def test_an_attempt(self):
        ReservationFactory(attempt="turn:1")
        with pytest.raises(IntegrityError, match="attempt"):
            ReservationFactory(attempt="turn:1")

    def test_a_reservations_leg_on_a_budget(self):
        leg = ReservationLegFactory()
        with pytest.raises(IntegrityError, match="one_leg_per_budget"):
            ReservationLegFactory(reservation=leg.reservation, window=leg.window)

    def test_a_unit_of_a_message(self):
        row = TokenLedgerFactory()
        with pytest.raises(IntegrityError, match="ledger_once"):
            TokenLedgerFactory(message_id=row.message_id)

    def test_a_model_in_a_price_list_and_a_step_of_its_rates(self):
        price = PriceFactory(model="penny")
        with pytest.raises(IntegrityError, match="price_once_per_version"), transaction.atomic():
            PriceFactory(model="penny", version=price.version)
        RateFactory(price=price)
        with pytest.raises(IntegrityError, match="rate_once_per_step"):
            RateFactory(price=price)


class TestWindows:
    @pytest.mark.parametrize(
        ("start", "end"),
        [(-HOUR, HOUR), (HOUR, 2 * HOUR), (23 * HOUR, 25 * HOUR), (-HOUR, 25 * HOUR)],
        ids=["before into it", "within it", "out of it", "around it"],
    )
    def test_no_moment_is_in_two_windows_of_a_budget(self, start, end):
        window = BudgetWindowFactory()
        with pytest.raises(IntegrityError, match="window_never_overlaps"):
            BudgetWindowFactory(budget=window.budget, starts_at=DAY + start, ends_at=DAY + end)

    def test_windows_may_touch_and_budgets_may_share_moments(self):
        window = BudgetWindowFactory()
        BudgetWindowFactory(budget=window.budget, starts_at=window.ends_at, ends_at=window.ends_at + HOUR)
        BudgetWindowFactory()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("settled", "held"),
        ("settled", "released"),
        ("released", "settled"),
        ("released", "uncertain"),
    ],
)
def test_a_reservation_takes_only_its_steps(source, target):
    fields = {"ended_at": clock.now()} if source in ("settled", "released") else {"uncertain_until": clock.now()}
    reservation = ReservationFactory(state=source, **fields)
    with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
        Reservation.objects.filter(pk=reservation.pk).update(state=target)
