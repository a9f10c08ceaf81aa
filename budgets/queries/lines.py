"""What each budget allows now. The numbers shown are the rows that decide."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from budgets.models import Budget, BudgetWindow, in_scopes
from budgets.queries.wording import amount_text, moment_text
from budgets.states import WHOLE_FLEET, Mode, Period, Scope
from fleet.kernel import clock

PAGE = 200


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One budget in its present window. Amounts are nano-dollars, tokens or runs, as `metric` says.

    `headroom` is limit minus posted minus pending, not below zero. `resets_at` is None for a lifetime budget.
    `opened` is False as long as nothing was reserved in this period.
    """

    budget_id: int
    name: str
    scope_kind: str
    scope_id: str
    metric: str
    mode: str
    period: str
    timezone: str
    limit: int
    posted: int
    pending: int
    headroom: int
    overrun: int
    starts_at: dt.datetime
    resets_at: dt.datetime | None
    opened: bool
    as_of: dt.datetime

    @property
    def percent(self) -> int:
        """Return the posted share of the limit, rounded down; above 100 after an overrun."""
        return self.posted * 100 // self.limit if self.limit else 100

    @property
    def sentence(self) -> str:
        """Return the line as a bot says it."""
        words = {
            name: amount_text(self.metric, getattr(self, name)) for name in ("posted", "limit", "pending", "headroom")
        }
        until = "for good"
        if self.resets_at:
            until = f"until {moment_text(self.resets_at, ZoneInfo(self.timezone))}"
        held = f" {words['pending']} held by runs in progress," if self.pending else ""
        hard = "" if self.mode == Mode.HARD else " It refuses nothing."
        return f"{self.name}: {words['posted']} of {words['limit']} used,{held} {words['headroom']} left {until}.{hard}"


def budget_lines(scopes: Mapping[str, str]) -> tuple[BudgetLine, ...]:
    """Return the budgets in force for these scopes, `{kind: id}`: the same ones `reserve` asks (two queries)."""
    return lines_of(Budget.objects.filter(in_scopes(scopes), active=True)[:PAGE])


def all_lines(*, after: int = 0, limit: int = PAGE) -> tuple[BudgetLine, ...]:
    """Return the budgets in force by id, after the id `after` (two queries)."""
    return lines_of(Budget.objects.filter(active=True, pk__gt=after)[:limit])


def lines_of(budgets: Iterable[Budget]) -> tuple[BudgetLine, ...]:
    """Return these budgets in their present windows (a query for the windows)."""
    now = clock.now()
    rows = list(budgets)
    found = BudgetWindow.objects.filter(budget__in=[row.pk for row in rows], starts_at__lte=now, ends_at__gt=now)
    windows = {window.budget_id: window for window in found}
    return tuple(_line(row, windows.get(row.pk), now) for row in rows)


def _line(budget: Budget, window: BudgetWindow | None, now: dt.datetime) -> BudgetLine:
    shown = window or _unopened(budget, now)
    return BudgetLine(
        budget_id=budget.pk,
        name=budget.name,
        scope_kind=budget.scope_kind,
        scope_id=budget.scope_id,
        metric=budget.metric,
        mode=budget.mode,
        period=budget.period,
        timezone=budget.timezone,
        limit=shown.limit_amount,
        posted=shown.posted,
        pending=shown.pending,
        headroom=max(0, shown.headroom),
        overrun=shown.overrun,
        starts_at=shown.starts_at,
        resets_at=None if budget.period == Period.LIFETIME else shown.ends_at,
        opened=window is not None,
        as_of=now,
    )


def _unopened(budget: Budget, now: dt.datetime) -> BudgetWindow:
    """Return the window that the first reservation would make, without making it."""
    starts_at, ends_at = budget.bounds_at(now)
    return BudgetWindow(budget=budget, starts_at=starts_at, ends_at=ends_at, limit_amount=budget.limit_amount)


def budget_sentence(identity_slug: str, person_id: int | None = None) -> str:
    """Return what the fleet, this bot and this person may still spend, one budget per line."""
    scopes = {Scope.FLEET.value: WHOLE_FLEET, Scope.IDENTITY.value: identity_slug}
    if person_id is not None:
        scopes[Scope.PERSON.value] = str(person_id)
    lines = budget_lines(scopes)
    return "\n".join(line.sentence for line in lines) or "No budget limits me."
