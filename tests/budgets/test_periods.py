"""Every moment belongs to exactly one period, whatever the clocks of the timezone do."""

import datetime as dt
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.models.periods import BEGINNING, NEVER, bounds
from budgets.states import Period

ZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("posix"))
MOMENTS = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2037, 12, 31), timezones=st.just(dt.UTC))
CALENDAR = st.one_of(
    st.just((Period.DAY, 1)),
    st.tuples(st.just(Period.WEEK), st.integers(1, 7)),
    st.tuples(st.just(Period.MONTH), st.integers(1, 31)),
)


@settings(deadline=None, max_examples=300)
@given(moment=MOMENTS, zone=st.sampled_from(ZONES), calendar=CALENDAR)
def test_a_moment_lies_in_its_period_and_the_periods_around_it_touch(moment, zone, calendar):
    period, anchor = calendar
    start, end = bounds(period, moment, timezone=zone, anchor=anchor)
    assert start <= moment < end
    assert bounds(period, start, timezone=zone, anchor=anchor) == (start, end)
    assert bounds(period, end - dt.timedelta(microseconds=1), timezone=zone, anchor=anchor) == (start, end)
    assert bounds(period, end, timezone=zone, anchor=anchor)[0] == end
    assert bounds(period, start - dt.timedelta(microseconds=1), timezone=zone, anchor=anchor)[1] == start


@settings(deadline=None, max_examples=300)
@given(moment=MOMENTS, zone=st.sampled_from(ZONES))
def test_days_begin_and_end_at_local_midnight_or_where_the_clocks_skip_it(moment, zone):
    start, _ = bounds(Period.DAY, moment, timezone=zone)
    local, just_before = (start - dt.timedelta(seconds=delay) for delay in (0, 1))
    assert local.astimezone(ZoneInfo(zone)).date() > just_before.astimezone(ZoneInfo(zone)).date()


@pytest.mark.parametrize(
    ("day", "hours"),
    [
        pytest.param("2026-03-29", 23, id="spring forward"),
        pytest.param("2026-10-25", 25, id="fall back"),
        pytest.param("2026-11-22", 24, id="any other day"),
    ],
)
def test_a_day_in_berlin_is_as_long_as_its_clocks_make_it(day, hours):
    noon = dt.datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))
    start, end = bounds(Period.DAY, noon, timezone="Europe/Berlin")
    assert end - start == dt.timedelta(hours=hours)


def test_a_day_begins_at_the_jump_where_clocks_skip_midnight():
    noon = dt.datetime(2024, 9, 8, 12, tzinfo=ZoneInfo("America/Santiago"))  # 00:00 became 01:00
    start, end = bounds(Period.DAY, noon, timezone="America/Santiago")
    assert end - start == dt.timedelta(hours=23)
    assert start.astimezone(ZoneInfo("America/Santiago")).hour == 1


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        pytest.param("2026-02-10", "2026-01-31", "2026-02-28", id="the 31st is the last of January"),
        pytest.param("2026-02-28", "2026-02-28", "2026-03-31", id="and the 28th of February"),
        pytest.param("2028-02-28", "2028-01-31", "2028-02-29", id="or the 29th in a leap year"),
        pytest.param("2026-12-31", "2026-12-31", "2027-01-31", id="and the year ends in between"),
    ],
)
def test_a_month_that_begins_on_the_31st_begins_on_the_last_day_of_shorter_months(moment, start, end):
    at = dt.datetime.fromisoformat(f"{moment}T08:00:00+00:00")
    assert [day.date().isoformat() for day in bounds(Period.MONTH, at, anchor=31)] == [start, end]


def test_a_week_begins_on_the_chosen_day():
    sunday = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
    assert bounds(Period.WEEK, sunday, anchor=1)[0].date() == dt.date(2026, 11, 16)
    assert bounds(Period.WEEK, sunday, anchor=7)[0].date() == dt.date(2026, 11, 22)


def test_a_rolling_period_begins_with_its_first_use():
    now = dt.datetime(2026, 11, 22, 12, 34, tzinfo=dt.UTC)
    assert bounds(Period.ROLLING, now, hours=5) == (now, now + dt.timedelta(hours=5))


def test_a_lifetime_holds_every_moment():
    now = dt.datetime(2026, 11, 22, 12, 34, tzinfo=dt.UTC)
    assert bounds(Period.LIFETIME, now, timezone="Europe/Berlin") == (BEGINNING, NEVER)
