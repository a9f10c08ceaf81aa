"""Numbers and times as people read them."""

from __future__ import annotations

import datetime as dt

import pytest

from fleet.console import wording

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("nano_usd", "words"),
    [
        (None, "unknown"),
        (0, "$0"),
        (1, "under $0.0001"),
        (4_213_000, "$0.0042"),
        (999_960_000, "$1.0000"),
        (1_204_200_000, "$1.20"),
        (12_345_000_000_000, "$12,345.00"),
        (-1_000_000_000, "-$1.00"),
    ],
)
def test_money_is_never_rounded_to_nothing(nano_usd: int | None, words: str) -> None:
    assert wording.usd(nano_usd) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "unknown"),
        (0.0404, "40 ms"),
        (1.84, "1.8 s"),
        (14.2, "14 s"),
        (59.7, "1 m 00 s"),
        (72, "1 m 12 s"),
        (11_100, "3 h 05 m"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(seconds: float | None, words: str) -> None:
    assert wording.duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "now"), (12, "12 s ago"), (300, "5 min ago"), (10_800, "3 h ago"), (200_000, "2 d ago")]
)
def test_an_age_has_one_unit(seconds: int, words: str) -> None:
    assert wording.age(NOW - dt.timedelta(seconds=seconds), NOW) == words


def test_a_counted_noun_agrees_with_its_number() -> None:
    assert wording.count(1, "process", "processes") == "1 process"
    assert wording.count(1_204, "token") == "1,204 tokens"
