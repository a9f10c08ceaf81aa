"""What changes budgets: reserve → meter → settle, and making budgets and prices."""

from budgets.actions.metering import meter
from budgets.actions.planning import change_budget, create_budget, ensure_default_budgets, ensure_identity_budget
from budgets.actions.pricing import import_prices
from budgets.actions.reserving import LEASE, renew, reserve
from budgets.actions.settling import hold_again, hold_uncertain, release, settle, sweep_reservations
from budgets.policies import BudgetRefused
from budgets.ports import Metered, UsageUnits

__all__ = [
    "LEASE",
    "BudgetRefused",
    "Metered",
    "UsageUnits",
    "change_budget",
    "create_budget",
    "ensure_default_budgets",
    "ensure_identity_budget",
    "hold_again",
    "hold_uncertain",
    "import_prices",
    "meter",
    "release",
    "renew",
    "reserve",
    "settle",
    "sweep_reservations",
]
