"""What every test may rely on."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import TransactionTestCase

from tests import triggers

pytest_plugins = ["tests.emulators.plugin", "tests.running_product"]


@pytest.fixture(scope="session", autouse=True)
def append_only_tables_are_emptied_between_tests() -> None:
    """Let a test run, and nobody else, empty the tables that the database keeps append-only."""
    empty = TransactionTestCase._fixture_teardown

    def emptied(case: Any) -> None:
        with triggers.switched_off():
            empty(case)

    TransactionTestCase._fixture_teardown = emptied
