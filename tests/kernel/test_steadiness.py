"""Whoever judges leases waits after the database's clock has leapt forward or it was away, and only then."""

import datetime as dt

import pytest
from django.db import OperationalError

from fleet.kernel.steadiness import PATIENCE_SECONDS, SILENCE_SECONDS, TOLERANCE_SECONDS, Steadiness

START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


class Times:
    """The database's clock and ours, each moved by hand."""

    def __init__(self) -> None:
        self.there, self.here = START, 100.0

    def pass_by(self, seconds: float, *, leap: float = 0.0) -> None:
        self.here += seconds
        self.there += dt.timedelta(seconds=seconds + leap)


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def steadiness(times: Times) -> Steadiness:
    return Steadiness(ask=lambda: times.there, own=lambda: times.here)


def test_two_clocks_that_go_together_are_steady(times: Times, steadiness: Steadiness):
    for seconds in (0, 2, 2, SILENCE_SECONDS):
        times.pass_by(seconds)
        assert steadiness.is_given()


def test_after_a_leap_forward_it_waits_until_every_owner_has_had_time_to_beat(times: Times, steadiness: Steadiness):
    assert steadiness.is_given()
    times.pass_by(2, leap=3600)
    assert not steadiness.is_given()
    times.pass_by(PATIENCE_SECONDS - 0.1)
    assert not steadiness.is_given()
    times.pass_by(0.2)
    assert steadiness.is_given()


def test_a_second_leap_starts_the_wait_anew(times: Times, steadiness: Steadiness):
    steadiness.is_given()
    times.pass_by(1, leap=60)
    steadiness.is_given()
    times.pass_by(PATIENCE_SECONDS - 1, leap=60)
    assert not steadiness.is_given()
    times.pass_by(PATIENCE_SECONDS - 1)
    assert not steadiness.is_given()


def test_a_leap_back_and_a_small_one_end_no_lease(times: Times, steadiness: Steadiness):
    steadiness.is_given()
    times.pass_by(2, leap=-3600)
    assert steadiness.is_given()
    times.pass_by(2, leap=TOLERANCE_SECONDS - 0.1)
    assert steadiness.is_given()


def test_after_an_absence_owners_get_the_time_to_beat_again(times: Times):
    answers = iter([times.there, OperationalError("away"), times.there, times.there])

    def ask() -> dt.datetime:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    steadiness = Steadiness(ask=ask, own=lambda: times.here)
    assert steadiness.is_given()
    with pytest.raises(OperationalError):
        steadiness.is_given()
    assert not steadiness.is_given()
    times.here += PATIENCE_SECONDS
    assert steadiness.is_given()


def test_a_question_that_hung_for_half_a_lease_counts_as_an_absence(times: Times, steadiness: Steadiness):
    steadiness.is_given()
    times.pass_by(SILENCE_SECONDS + 1)
    assert not steadiness.is_given()


@pytest.mark.django_db
def test_it_reads_the_real_clock_of_the_database():
    steadiness = Steadiness()
    assert steadiness.is_given()
    assert steadiness.is_given()
