"""The table is set for every test here."""

import pytest

from tests.execution.running import run, table

__all__ = ["run", "table"]


@pytest.fixture(autouse=True)
def _set(table: None) -> None:
    """Prices, budgets, policy and directories."""
