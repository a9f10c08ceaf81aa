"""Reads of budgets, prices and usage; no side effects."""

from budgets.queries.lines import BudgetLine, all_lines, budget_lines, budget_sentence
from budgets.queries.overview import Overview, overview
from budgets.queries.prices import is_priced, price_of
from budgets.queries.today import SpentToday, spent_today
from budgets.queries.usage import UsageReport, Used, spent, usage_of, usage_sentence

__all__ = [
    "BudgetLine",
    "Overview",
    "SpentToday",
    "UsageReport",
    "Used",
    "all_lines",
    "budget_lines",
    "budget_sentence",
    "is_priced",
    "overview",
    "price_of",
    "spent",
    "spent_today",
    "usage_of",
    "usage_sentence",
]
