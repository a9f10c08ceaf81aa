"""What was spent today, and what may be."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Sum

from budgets.models import Budget, BudgetWindow, TokenLedger
from budgets.states import MONEY, Mode, Period, Scope
from fleet.console.presenters import Spend
from fleet.kernel import clock


def spend_today(scope: Scope, ids: Sequence[str]) -> dict[str, Spend]:
    """Return the money spent today for each id: by its tightest daily budget, or by the ledger (UTC) where it has none."""
    budgets = Budget.objects.filter(
        active=True, scope_kind=scope, scope_id__in=ids, metric__in=MONEY, period=Period.DAY, mode=Mode.HARD
    )
    tightest: dict[str, Budget] = {}
    for budget in budgets.order_by("-limit_amount"):
        tightest[budget.scope_id] = budget
    now = clock.now()
    windows = BudgetWindow.objects.filter(budget__in=tightest.values(), starts_at__lte=now, ends_at__gt=now)
    posted = dict(windows.values_list("budget_id", "posted"))
    spends = {key: Spend(posted.get(budget.pk, 0), budget.limit_amount) for key, budget in tightest.items()}
    unlimited = [key for key in ids if key not in tightest]
    ledger = _by_ledger(unlimited) if unlimited else {}
    return spends | {key: Spend(ledger.get(key, 0), None) for key in unlimited}


def _by_ledger(slugs: Sequence[str]) -> dict[str, int]:
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    rows = TokenLedger.objects.filter(identity_slug__in=slugs, at__gte=midnight).order_by()
    return dict(rows.values_list("identity_slug").annotate(total=Sum("cost_nano_usd")))
