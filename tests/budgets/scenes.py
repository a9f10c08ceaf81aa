"""The words these tests are told in. A model named `penny` costs one cent per token of output, `free` costs nothing."""

from __future__ import annotations

from typing import Any

from django.db import connection

from budgets import actions
from budgets.models import Budget, BudgetWindow, Reservation, ReservationLeg
from budgets.ports import Metered, UsageUnits
from budgets.states import PRICED_UNITS, Metric, PriceBasis, Scope, Unit
from fleet.kernel.actors import Actor
from tests.factories.budgets import CENT, BudgetFactory, PriceFactory, PriceVersionFactory, RateFactory

BY = Actor.system("test")
ADA = {"fleet": "*", "identity": "ada"}
BOB = {"fleet": "*", "identity": "bob"}
SLICE = 25 * CENT


def price_list() -> None:
    """A new version of prices: penny, free, and big, which costs a hundred times as much as penny."""
    version = PriceVersionFactory()
    for model, basis, cents in (
        ("penny", PriceBasis.PRICED, 1),
        ("free", PriceBasis.FREE, 0),
        ("big", PriceBasis.PRICED, 100),
    ):
        price = PriceFactory(version=version, model=model, basis=basis)
        for unit in PRICED_UNITS:
            RateFactory(price=price, unit=unit, nano_usd=cents * CENT if unit == Unit.OUTPUT else 0)


def fleet_budget(cents: int = 100, **fields: Any) -> Budget:
    """A daily money budget of the whole fleet."""
    return BudgetFactory(limit_amount=cents * CENT, **fields)


def bot_budget(slug: str = "ada", cents: int = 100, **fields: Any) -> Budget:
    """A daily money budget of one bot."""
    return BudgetFactory(scope_kind=Scope.IDENTITY, scope_id=slug, limit_amount=cents * CENT, **fields)


def reserve(attempt: str = "turn:1", scopes: dict[str, str] | None = None, model: str = "penny") -> Reservation:
    """Reserve as admission does, by default for Ada."""
    return actions.reserve(attempt=attempt, scopes=scopes or ADA, model=model, by=BY)


def use(
    reservation: Reservation,
    output: int,
    message: str = "m1",
    *,
    execution: int = 1,
    billing: str = "api",
    **fields: Any,
) -> Metered:
    """Report that a message has put out this many tokens so far: as many cents with the model penny."""
    usage = UsageUnits(message_id=message, model=fields.pop("model", "penny"), output=output, **fields)
    return actions.meter(
        reservation_id=reservation.pk, execution_id=execution, usages=[usage], provider="test", billing=billing
    )


def settle(reservation: Reservation) -> Reservation:
    """End a run."""
    return actions.settle(reservation_id=reservation.pk, by=BY)


def window(budget: Budget) -> BudgetWindow:
    """The budget's newest window, as it is in the database."""
    return BudgetWindow.objects.filter(budget=budget).latest("starts_at")


def leg(reservation: Reservation, budget: Budget) -> ReservationLeg:
    """The reservation's leg on this budget, as it is in the database."""
    return ReservationLeg.objects.get(reservation=reservation, budget=budget)


WRONG_WINDOWS = """
    SELECT present.id, budget.name, present.posted, present.pending
    FROM budgets_budgetwindow AS present JOIN budgets_budget AS budget ON budget.id = present.budget_id
    WHERE present.pending <> (SELECT coalesce(sum(held), 0) FROM budgets_reservationleg WHERE window_id = present.id)
    OR present.posted <> present.opening + (
        SELECT coalesce(sum(CASE
            WHEN budget.metric = 'imputed' THEN row.cost_nano_usd
            WHEN budget.metric = 'billed' THEN row.billed_nano_usd
            WHEN budget.metric = 'runs' AND row.unit = 'run' THEN row.quantity
            WHEN budget.metric = 'tokens' AND row.unit NOT IN ('run', 'web_searches') THEN row.quantity
        END), 0)
        FROM budgets_tokenledger AS row JOIN budgets_reservationleg AS leg USING (reservation_id)
        WHERE leg.budget_id = budget.id AND row.at >= present.starts_at AND row.at < present.ends_at)
"""
WRONG_RESERVATIONS = """
    SELECT id FROM budgets_reservation AS reservation
    WHERE cost_nano_usd <> (SELECT coalesce(sum(cost_nano_usd), 0) FROM budgets_tokenledger WHERE reservation_id = reservation.id)
    OR state IN ('settled', 'released')
        AND EXISTS (SELECT FROM budgets_reservationleg WHERE reservation_id = reservation.id AND held <> 0)
"""
_WINDOWS_ABOVE_LIMIT = """
    SELECT present.id, budget.name, present.posted, present.pending, present.limit_amount, present.overrun
    FROM budgets_budgetwindow AS present JOIN budgets_budget AS budget ON budget.id = present.budget_id
    WHERE budget.mode = 'hard' AND present.posted + present.pending > present.limit_amount + present.overrun
"""


def _rows(statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def assert_books_are_right() -> None:
    """What holds after every commit: windows and reservations show exactly what ledger and legs add up to."""
    assert _rows(WRONG_WINDOWS) == []
    assert _rows(WRONG_RESERVATIONS) == []


def assert_never_above_limits() -> None:
    """Hard budgets hold and spend no more than their limit, but for what runs used without holding it."""
    assert _rows(_WINDOWS_ABOVE_LIMIT) == []


def metric_budget(metric: Metric, limit: int, **fields: Any) -> Budget:
    """A daily fleet budget of another metric."""
    return BudgetFactory(metric=metric, limit_amount=limit, **fields)
