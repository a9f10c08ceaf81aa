"""The calendar of budgets: which stretch of time a moment belongs to. Pure; everything returned is in UTC."""

from __future__ import annotations

import calendar
import datetime as dt
from zoneinfo import ZoneInfo

from budgets.states import Period

BEGINNING = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NEVER = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


def bounds(
    period: str, moment: dt.datetime, *, timezone: str = "UTC", anchor: int = 1, hours: int = 0
) -> tuple[dt.datetime, dt.datetime]:
    """Return start (inclusive) and end (exclusive) of the period around `moment`.

    Days begin at local midnight, so they last 23, 24 or 25 hours. A week begins on the ISO weekday `anchor`, a month on the day
    `anchor`, or on the month's last day where it is shorter. A rolling period begins at the moment itself and lasts `hours`.
    """
    if period == Period.LIFETIME:
        return BEGINNING, NEVER
    if period == Period.ROLLING:
        return moment.astimezone(dt.UTC), moment.astimezone(dt.UTC) + dt.timedelta(hours=hours)
    zone = ZoneInfo(timezone)
    first, after = _dates(period, moment.astimezone(zone).date(), anchor)
    return _midnight(first, zone), _midnight(after, zone)


def _dates(period: str, day: dt.date, anchor: int) -> tuple[dt.date, dt.date]:
    """Return the first day of the period around `day`, and the first day after it."""
    if period == Period.DAY:
        return day, day + dt.timedelta(days=1)
    if period == Period.WEEK:
        first = day - dt.timedelta(days=(day.isoweekday() - anchor) % 7)
        return first, first + dt.timedelta(days=7)
    first = _anchored(day.year, day.month, anchor)
    if day < first:
        return _anchored(*_month_after(day.year, day.month, -1), anchor), first
    return first, _anchored(*_month_after(day.year, day.month, 1), anchor)


def _anchored(year: int, month: int, anchor: int) -> dt.date:
    return dt.date(year, month, min(anchor, calendar.monthrange(year, month)[1]))


def _month_after(year: int, month: int, step: int) -> tuple[int, int]:
    years, months = divmod(year * 12 + month - 1 + step, 12)
    return years, months + 1


def _midnight(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    """Return the first instant of a local day. Where clocks skip midnight, fold=0 names the instant of the jump."""
    return dt.datetime.combine(day, dt.time(), tzinfo=zone).astimezone(dt.UTC)
