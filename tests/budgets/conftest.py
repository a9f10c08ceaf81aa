"""Prices that are easy to add up."""

import pytest

from tests.budgets import scenes


@pytest.fixture
def prices(db: None) -> None:
    """The price list of these tests."""
    scenes.price_list()
