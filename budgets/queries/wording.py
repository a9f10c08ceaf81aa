"""Amounts and moments of budgets as people read them."""

from __future__ import annotations

import datetime as dt

from budgets.states import MONEY, Metric

NANO = 1_000_000_000


def money_text(nano_usd: int) -> str:
    """Return nano-dollars as `$12.40`; below a dollar with four digits, as `$0.0042`."""
    sign, amount = ("-" if nano_usd < 0 else ""), abs(nano_usd)
    if 0 < amount < NANO // 10_000:
        return f"{sign}under $0.0001"
    digits = 2 if amount >= NANO or amount % (NANO // 100) == 0 else 4
    return f"{sign}${amount / NANO:,.{digits}f}"


def amount_text(metric: str, amount: int) -> str:
    """Return an amount in the unit of `metric`: `$12.40`, `1,200 tokens`, `1 run`."""
    if metric in MONEY:
        return money_text(amount)
    noun = "token" if metric == Metric.TOKENS else "run"
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def moment_text(moment: dt.datetime, zone: dt.tzinfo) -> str:
    """Return a moment as the budget's people read their clocks: `23 Nov 2026, 00:00 UTC`."""
    return moment.astimezone(zone).strftime("%-d %b %Y, %H:%M %Z")
