"""Budgets and their windows, prices, reservations and the ledger."""

from budgets.models.budgets import Budget, BudgetAlert, BudgetWindow, in_scopes
from budgets.models.ledger import TokenLedger, amount_expression
from budgets.models.prices import Price, PriceVersion, Rate
from budgets.models.reservations import Reservation, ReservationLeg

__all__ = [
    "Budget",
    "BudgetAlert",
    "BudgetWindow",
    "Price",
    "PriceVersion",
    "Rate",
    "Reservation",
    "ReservationLeg",
    "TokenLedger",
    "amount_expression",
    "in_scopes",
]
