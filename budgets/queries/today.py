"""What was spent today, and what may be: one definition for every list that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budgets.models import Budget
from budgets.queries.lines import lines_of
from budgets.queries.usage import spent_by_bot
from budgets.states import MONEY, Mode, Period, Scope


@dataclass(frozen=True, slots=True)
class SpentToday:
    """Nano-dollars of the present day. `limit_nano_usd` is None where no daily budget limits it."""

    spent_nano_usd: int
    limit_nano_usd: int | None


def spent_today(slugs: Sequence[str]) -> dict[str, SpentToday]:
    """Return for each bot what its tightest hard daily budget says, or the ledger (UTC) where it has none (three queries)."""
    daily = Budget.objects.filter(
        active=True,
        scope_kind=Scope.IDENTITY,
        scope_id__in=slugs,
        metric__in=MONEY,
        period=Period.DAY,
        mode=Mode.HARD,
    )
    tightest = {budget.scope_id: budget for budget in daily.order_by("-limit_amount")}
    limited = {line.scope_id: SpentToday(line.posted, line.limit) for line in lines_of(tightest.values())}
    used = spent_by_bot([slug for slug in slugs if slug not in limited])
    return limited | {slug: SpentToday(spent, None) for slug, spent in used.items()}
