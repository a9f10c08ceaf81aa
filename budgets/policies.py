"""May a run hold a slice of these budgets? The answer is a number per metric, or a refusal that says who, how much and until when."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from budgets.models import Budget, BudgetWindow
from budgets.queries.people import who_can_raise
from budgets.queries.wording import amount_text, moment_text
from budgets.states import MONEY, Metric, Mode, Period, PriceBasis, RefusalKind
from fleet.kernel.exceptions import Refused

CENT = 10_000_000
SLICE: Mapping[str, int] = {Metric.IMPUTED: 25 * CENT, Metric.BILLED: 25 * CENT, Metric.TOKENS: 250_000, Metric.RUNS: 1}
"""What a run holds at a time. A slice and not the worst case, which would starve everyone else."""

SMALLEST: Mapping[str, int] = {Metric.IMPUTED: CENT, Metric.BILLED: CENT, Metric.TOKENS: 10_000, Metric.RUNS: 1}
"""Below this a hold is not worth starting a run for."""

TOP_UP_AT_LEFT = 5
"""A slice is topped up once no more than one fifth of it is left: when 80 % are used."""


class BudgetRefused(Refused):
    """A budget, or a missing price, does not allow the run; its code is one of `RefusalKind`."""

    status = 402
    code = RefusalKind.SPENT.value

    def __init__(
        self,
        what: str,
        *,
        code: str,
        why: str = "",
        next_step: str = "",
        budget: str = "",
        headroom: int | None = None,
        resets_at: dt.datetime | None = None,
    ) -> None:
        super().__init__(what, why=why, next_step=next_step, code=code)
        self.budget, self.headroom, self.resets_at = budget, headroom, resets_at

    def as_dict(self) -> dict[str, str]:
        """Return the error as the API shows it, with the blocking budget, its headroom and its reset time where there are any."""
        facts = {
            "budget": self.budget,
            "headroom": "" if self.headroom is None else str(self.headroom),
            "resets_at": self.resets_at.isoformat() if self.resets_at else "",
        }
        return super().as_dict() | {name: value for name, value in facts.items() if value}


@dataclass(frozen=True, slots=True)
class Place:
    """What a decision needs of the present window of a budget in force; amounts are in the unit of `metric`."""

    budget_id: int
    metric: str
    mode: str
    window_id: int
    ends_at: dt.datetime
    limit_amount: int
    posted: int
    pending: int

    @property
    def headroom(self) -> int:
        """Return what is neither posted nor held; negative after an overrun."""
        return self.limit_amount - self.posted - self.pending


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which window says no, and in which of the three ways."""

    kind: RefusalKind
    place: Place

    def __lt__(self, other: Refusal) -> bool:
        """Order by how long it lasts: waiting ends first, then the earlier reset."""
        return self._weight < other._weight

    @property
    def _weight(self) -> tuple[int, dt.datetime]:
        order = (RefusalKind.WAIT, RefusalKind.SPENT, RefusalKind.TOO_BIG)
        return order.index(self.kind), self.place.ends_at


def slice_of(metric: str, basis: PriceBasis) -> tuple[int, int]:
    """Return how much a run asks of a budget of `metric`, and the least it takes; nothing of money for a free model."""
    if basis == PriceBasis.FREE and metric in MONEY:
        return 0, 0
    return SLICE[metric], SMALLEST[metric]


def judge(places: Iterable[Place], basis: PriceBasis) -> dict[str, int] | Refusal:
    """Return what a run may hold of each metric, or the refusal that lasts longest.

    Only hard budgets limit. All legs of one metric hold the same: the least that any of them has left.
    """
    grants: dict[str, int] = {}
    refusals: list[Refusal] = []
    for place in places:
        ask, least = slice_of(place.metric, basis)
        grants.setdefault(place.metric, ask)
        if place.mode != Mode.HARD or not ask:
            continue
        grants[place.metric] = min(grants[place.metric], place.headroom)
        if place.headroom < least:
            refusals.append(Refusal(_kind(place, least), place))
    return max(refusals) if refusals else grants


def _kind(place: Place, least: int) -> RefusalKind:
    if place.limit_amount < least:
        return RefusalKind.TOO_BIG
    return RefusalKind.SPENT if place.limit_amount - place.posted < least else RefusalKind.WAIT


def refused(refusal: Refusal) -> BudgetRefused:
    """Return the error for a refusal: the blocking budget, its headroom, when it starts anew and who can raise it."""
    window = BudgetWindow.objects.select_related("budget").get(pk=refusal.place.window_id)
    budget = window.budget
    why, advice = _WORDS[refusal.kind](budget, window)
    return BudgetRefused(
        f"The budget “{budget.name}” does not allow another run.",
        code=refusal.kind.value,
        why=why,
        next_step=f"{advice}{who_can_raise()} can raise it.",
        budget=budget.name,
        headroom=max(0, window.headroom),
        resets_at=None if budget.period == Period.LIFETIME else window.ends_at,
    )


def _wait_words(budget: Budget, window: BudgetWindow) -> tuple[str, str]:
    held, left = amount_text(budget.metric, window.pending), amount_text(budget.metric, max(0, window.headroom))
    limit = amount_text(budget.metric, window.limit_amount)
    return (
        f"Runs in progress hold {held} of its {limit}; {left} is free.",
        "Try again when one of them has ended. ",
    )


def _too_big_words(budget: Budget, window: BudgetWindow) -> tuple[str, str]:
    limit, least = amount_text(budget.metric, window.limit_amount), amount_text(budget.metric, SMALLEST[budget.metric])
    return f"Its limit of {limit} is below the {least} that the smallest run holds.", "Waiting does not help. "


def _spent_words(budget: Budget, window: BudgetWindow) -> tuple[str, str]:
    posted, limit = amount_text(budget.metric, window.posted), amount_text(budget.metric, window.limit_amount)
    why = f"{posted} of {limit} is used."
    if budget.period == Period.LIFETIME:
        return why, "It never starts anew. "
    return why, f"It starts anew on {moment_text(window.ends_at, ZoneInfo(budget.timezone))}. "


_WORDS = {
    RefusalKind.WAIT: _wait_words,
    RefusalKind.TOO_BIG: _too_big_words,
    RefusalKind.SPENT: _spent_words,
}


def no_price(model: str) -> BudgetRefused:
    """Return the error for a model without a price."""
    return BudgetRefused(
        f"The model “{model}” has no price, so no budget can hold for it.",
        code=RefusalKind.UNKNOWN_PRICE.value,
        why="An unknown price is not zero.",
        next_step="Choose a priced model for this bot, by its full name such as claude-haiku-4-5.",
    )
