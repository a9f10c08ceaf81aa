"""Windows: found, made on first use, and locked in one order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from django.db.models import F, Max, Min, Sum
from django.db.models.functions import Coalesce

from budgets.models import Budget, BudgetWindow, TokenLedger, amount_expression


def lock_windows(ids: Iterable[int]) -> dict[int, BudgetWindow]:
    """Lock these windows by ascending id, which keeps nested budgets free of deadlocks; return them, with their budgets, by id."""
    rows = BudgetWindow.objects.select_related("budget").select_for_update(no_key=True, of=("self",))
    return {window.pk: window for window in rows.filter(pk__in=ids).order_by("pk")}


def open_windows(budget_ids: Iterable[int], moment: dt.datetime) -> dict[int, BudgetWindow]:
    """Return the windows of these budgets around `moment` by budget id, making those that do not exist yet.

    Must be called inside a transaction, before any window is locked: the budgets are locked here, which lets one process make
    a window and the others find it. Without a window to make nothing is locked.
    """
    wanted = set(budget_ids)
    found = _existing(wanted, moment)
    if missing := wanted - found.keys():
        budgets = list(Budget.objects.select_for_update(no_key=True).filter(pk__in=missing).order_by("pk"))
        found |= _existing(missing, moment)
        for budget in budgets:
            if budget.pk not in found:
                found[budget.pk] = _open(budget, moment)
    return found


def _existing(budget_ids: Iterable[int], moment: dt.datetime) -> dict[int, BudgetWindow]:
    rows = BudgetWindow.objects.filter(budget__in=budget_ids, starts_at__lte=moment, ends_at__gt=moment)
    return {window.budget_id: window for window in rows}


def _open(budget: Budget, moment: dt.datetime) -> BudgetWindow:
    """Make the window around `moment`, cut where older or newer windows reach into it (their timezone was another one).

    It opens with what the ledger already shows for the scope: a budget made at noon knows the morning.
    """
    starts_at, ends_at = budget.bounds_at(moment)
    others = BudgetWindow.objects.filter(budget=budget)
    before = others.filter(ends_at__lte=moment).aggregate(end=Max("ends_at"))["end"]
    after = others.filter(starts_at__gt=moment).aggregate(start=Min("starts_at"))["start"]
    starts_at, ends_at = max(starts_at, before or starts_at), min(ends_at, after or ends_at)
    opening = _already_used(budget, starts_at, ends_at)
    return BudgetWindow.objects.create(
        budget=budget,
        starts_at=starts_at,
        ends_at=ends_at,
        limit_amount=budget.limit_amount,
        opening=opening,
        posted=opening,
    )


def _already_used(budget: Budget, starts_at: dt.datetime, ends_at: dt.datetime) -> int:
    column, counted = amount_expression(budget.metric)
    rows = TokenLedger.objects.filter(
        counted,
        at__gte=starts_at,
        at__lt=ends_at,
        reservation__scopes__contains={budget.scope_kind: budget.scope_id},
    )
    total: int = rows.aggregate(total=Coalesce(Sum(F(column)), 0))["total"]
    return total
