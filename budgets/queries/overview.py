"""The money of the whole fleet on one screen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Sum
from django.db.models.functions import Coalesce

from budgets.models import BudgetAlert, PriceVersion, Reservation, ReservationLeg
from budgets.queries.lines import BudgetLine, all_lines
from budgets.queries.usage import in_period
from budgets.states import MONEY, Period, PriceBasis, ReservationState, Scope
from fleet.kernel import clock

ALERTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Overview:
    """The fleet's money at `as_of`. `today` is the UTC day.

    `uncertain_nano_usd` is what vanished runs still hold of the fleet's budgets; `prices` names the price list, empty before the first.
    """

    lines: tuple[BudgetLine, ...]
    today_nano_usd: int
    today_billed_nano_usd: int
    today_unpriced_nano_usd: int
    runs_holding: int
    runs_uncertain: int
    uncertain_nano_usd: int
    alerts: Sequence[BudgetAlert]
    prices: str
    prices_from: dt.datetime | None
    as_of: dt.datetime


def overview(*, after: int = 0) -> Overview:
    """Return the fleet's budgets, one page after the budget id `after`, and its totals."""
    prices = PriceVersion.objects.order_by("-pk").first()
    holding = Reservation.objects.filter(state=ReservationState.HELD).count()
    uncertain = Reservation.objects.filter(state=ReservationState.UNCERTAIN).count()
    cost, billed, unpriced = _today()
    return Overview(
        lines=all_lines(after=after),
        today_nano_usd=cost,
        today_billed_nano_usd=billed,
        today_unpriced_nano_usd=unpriced,
        runs_holding=holding,
        runs_uncertain=uncertain,
        uncertain_nano_usd=_uncertain(),
        alerts=list(BudgetAlert.objects.select_related("window__budget").order_by("-pk")[:ALERTS_SHOWN]),
        prices=prices.source if prices else "",
        prices_from=prices.imported_at if prices else None,
        as_of=clock.now(),
    )


def _today() -> tuple[int, int, int]:
    rows = in_period(Period.DAY).order_by().values("basis")
    sums = list(rows.annotate(cost=Sum("cost_nano_usd"), billed=Sum("billed_nano_usd")))
    unpriced = sum(row["cost"] for row in sums if row["basis"] == PriceBasis.UNKNOWN)
    return sum(row["cost"] for row in sums), sum(row["billed"] for row in sums), unpriced


def _uncertain() -> int:
    legs = ReservationLeg.objects.filter(
        reservation__state=ReservationState.UNCERTAIN, budget__scope_kind=Scope.FLEET, budget__metric__in=MONEY
    )
    total: int = legs.aggregate(total=Coalesce(Sum("held"), 0))["total"]
    return total
