"""Numbers and times as people read them. Unknown is a word, never a zero."""

from __future__ import annotations

import datetime as dt

from execution.states import AT_LEAST, UNKNOWN

NANO = 1_000_000_000


def usd(nano_usd: int | None) -> str:
    """Return money, from nano-dollars: `$12.40`, `$0.0042`, `$0`, or `unknown`."""
    if nano_usd is None:
        return "unknown"
    if nano_usd == 0:
        return "$0"
    sign, dollars = ("-" if nano_usd < 0 else ""), abs(nano_usd) / NANO
    if dollars < 0.0001:
        return f"{sign}under $0.0001"
    return f"{sign}${dollars:,.2f}" if dollars >= 1 else f"{sign}${dollars:.4f}"


def cost(nano_usd: int | None, basis: str) -> str:
    """Return what a turn cost: `$0.0042`, `at least $0.0042`, `cost unknown` of one that spent, or `unknown`."""
    if nano_usd is None and basis == UNKNOWN:
        return "cost unknown"
    return f"at least {usd(nano_usd)}" if basis == AT_LEAST else usd(nano_usd)


def duration(seconds: float | None) -> str:
    """Return a length of time: `40 ms`, `1.8 s`, `1 m 12 s`, `3 h 05 m`, `2 d 4 h`, or `unknown`."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return f"{round(max(seconds, 0) * 1000)} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def age(moment: dt.datetime, now: dt.datetime) -> str:
    """Return how long ago a moment was: `now`, `12 s ago`, `5 min ago`, `3 h ago`, `2 d ago`."""
    seconds = int((now - moment).total_seconds())
    if seconds < 5:
        return "now"
    if seconds < 60:
        return f"{seconds} s ago"
    if seconds < 3600:
        return f"{seconds // 60} min ago"
    if seconds < 86_400:
        return f"{seconds // 3600} h ago"
    return f"{seconds // 86_400} d ago"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a counted noun: `1 process`, `2 processes`, `1,204 tokens`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def soon(moment: dt.datetime, now: dt.datetime) -> str:
    """Return a moment that is awaited, both on one clock: `14:05`, or `28 November 14:05` on another day."""
    return f"{moment:%H:%M}" if moment.date() == now.date() else f"{moment.day} {moment:%B %H:%M}"
