"""The receipt of a reply says what it cost, and when that is only the least it can have cost."""

from __future__ import annotations

from django.template.loader import render_to_string

from execution.models import Execution
from execution.states import AT_LEAST
from fleet.console.screens.transcript import receipt


def shown(cost_basis: str) -> str:
    execution = Execution(model="gpt-5.6-luna", cost_nano_usd=12_000_000, cost_basis=cost_basis)
    return " ".join(render_to_string("chat/_receipt.html", {"receipt": receipt(execution)}).split())


def test_what_was_counted_to_the_end_is_what_it_cost() -> None:
    page = shown("priced")
    assert "$0.0120 (priced)" in page
    assert "at least" not in page


def test_what_was_cut_off_cost_at_least_so_much_and_the_summary_says_so_too() -> None:
    page = shown(AT_LEAST)
    assert page.count("at least $0.0120") == 2
    assert "cut off before all of it was counted" in page
    assert AT_LEAST not in page
