"""Amounts as people read them."""

import pytest

from budgets.queries.wording import amount_text, money_text
from budgets.states import Metric

USD = 10**9


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "$0.00"),
        (1, "under $0.0001"),
        (100_000, "$0.0001"),
        (4_200_000, "$0.0042"),
        (250_000_000, "$0.25"),
        (12 * USD + 400_000_000, "$12.40"),
        (1_234_567 * USD, "$1,234,567.00"),
        (-USD // 2, "-$0.50"),
    ],
)
def test_money(nano_usd, text):
    assert money_text(nano_usd) == text


@pytest.mark.parametrize(
    ("metric", "amount", "text"),
    [
        (Metric.BILLED, USD, "$1.00"),
        (Metric.TOKENS, 1_200, "1,200 tokens"),
        (Metric.TOKENS, 1, "1 token"),
        (Metric.RUNS, 1, "1 run"),
        (Metric.RUNS, 0, "0 runs"),
    ],
)
def test_amounts_are_told_in_their_unit(metric, amount, text):
    assert amount_text(metric, amount) == text
