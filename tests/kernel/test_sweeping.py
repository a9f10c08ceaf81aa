"""A sweep goes through its rows each for itself."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from fleet.kernel.exceptions import StateConflict
from fleet.kernel.sweeping import each


def stumbling(on: str, error: Exception):
    """Return a step that touches every key but one."""

    def step(key: str) -> bool:
        if key == on:
            raise error
        return True

    return step


def test_it_counts_what_it_touched() -> None:
    assert each(lambda key: key != "b", "abc", what="letter") == 2


def test_somebody_faster_is_passed_over_in_silence(caplog) -> None:
    assert each(stumbling("b", StateConflict("This letter is no longer b.")), "abc", what="letter") == 2
    assert caplog.text == ""


def test_one_that_fails_is_logged_and_the_others_are_touched(caplog) -> None:
    assert each(stumbling("a", ValueError("nobody thought of this")), "abc", what="letter") == 2
    assert "nobody thought of this" in caplog.text


def test_a_database_that_is_away_ends_the_round() -> None:
    with pytest.raises(OperationalError):
        each(stumbling("a", OperationalError("away")), "abc", what="letter")
