"""What every test may rely on."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import TransactionTestCase

from budgets.actions import pricing
from fleet.kernel import steadiness
from tests import triggers

pytest_plugins = ["tests.emulators.plugin", "tests.processes", "tests.running_product"]


@pytest.fixture(scope="session", autouse=True)
def append_only_tables_are_emptied_between_tests() -> None:
    """Let a test run, and nobody else, empty the tables that the database keeps append-only."""
    empty = TransactionTestCase._fixture_teardown

    def emptied(case: Any) -> None:
        with triggers.switched_off():
            empty(case)

    TransactionTestCase._fixture_teardown = emptied


@pytest.fixture(scope="session", autouse=True)
def catalogue_is_worked_out_once() -> None:
    """Half the tests import the prices, and working them out takes longer than writing them down."""
    entries = pricing._catalogue_entries
    pricing._catalogue_entries = functools.cache(lambda: tuple(entries()))


@pytest.fixture(autouse=True)
def leases_may_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test begins as a process does: nobody remembers when leases were last looked at."""
    monkeypatch.setattr(steadiness, "_steadiness", steadiness.Steadiness())


@pytest.fixture(autouse=True)
def processes_that_end_have_ended() -> Iterator[None]:
    """What a test lets end in the background is written down before the tables are emptied."""
    yield
    for thread in threading.enumerate():
        if thread.name == "standby:end":
            thread.join(20)
