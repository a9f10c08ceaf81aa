"""The receipt of a reply says what it cost, when that is only the least it can have cost, and when nobody knows."""

from __future__ import annotations

from django.template.loader import render_to_string

from execution.models import Execution
from execution.states import AT_LEAST, UNKNOWN
from fleet.console.screens.transcript import receipt
from fleet.kernel import clock


def shown(cost_basis: str, cost_nano_usd: int | None = 12_000_000, **tokens: int) -> str:
    execution = Execution(model="gpt-5.6-luna", cost_nano_usd=cost_nano_usd, cost_basis=cost_basis, **tokens)
    context = {"receipt": receipt(execution, asked_at=clock.now())}
    return " ".join(render_to_string("chat/_receipt.html", context).split())


def test_what_was_counted_to_the_end_is_what_it_cost() -> None:
    page = shown("priced")
    assert "$0.0120 (priced)" in page
    assert "at least" not in page


def test_what_was_cut_off_cost_at_least_so_much_and_the_summary_says_so_too() -> None:
    page = shown(AT_LEAST)
    assert page.count("at least $0.0120") == 2
    assert "cut off before all of it was counted" in page
    assert AT_LEAST not in page


def test_where_nobody_knows_it_says_so_once_and_why_and_names_no_tokens() -> None:
    page = shown(UNKNOWN, None)
    assert "cost unknown · unknown</summary>" in page, "nor for how long, in this one"
    assert "<dd>unknown: its provider did not tell what it used</dd>" in page
    assert "(unknown)" not in page and "0 in" not in page and "0 tokens" not in page


def test_tokens_that_were_told_are_shown_beside_a_cost_that_is_not_known() -> None:
    page = shown(UNKNOWN, None, input_uncached=30, output=12)
    assert "cost unknown · 42 tokens" in page and "30 in" in page


def test_a_cost_at_a_price_that_is_not_known_is_a_cost_all_the_same() -> None:
    assert "$0.0120 (unknown)" in shown(UNKNOWN)
