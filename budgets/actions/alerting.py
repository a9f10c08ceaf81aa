"""Alerts: said once per window and threshold."""

from __future__ import annotations

from collections.abc import Iterable

from budgets import events
from budgets.models import BudgetAlert, BudgetWindow
from budgets.states import Mode
from fleet.kernel import journal, live
from fleet.kernel.actors import Actor


def raise_alerts(windows: Iterable[BudgetWindow], *, by: Actor) -> None:
    """Record the thresholds these locked windows have reached for the first time; the caller saves `alerted`."""
    for window in windows:
        if window.budget.mode != Mode.OBSERVE:
            for threshold in window.crossed(window.budget.thresholds):
                _raise(window, threshold, by)


def _raise(window: BudgetWindow, threshold: int, by: Actor) -> None:
    window.alerted = threshold
    alert = BudgetAlert.objects.create(
        window=window, threshold=threshold, posted=window.posted, limit_amount=window.limit_amount
    )
    journal.record(
        events.ALERT_RAISED,
        by=by,
        subject=("budget", window.budget_id),
        budget=window.budget.name,
        alert=alert.pk,
        threshold=threshold,
        posted=window.posted,
        limit=window.limit_amount,
    )
    live.hint("fleet", budget=window.budget_id, threshold=threshold)
