"""What things cost. A version of prices never changes, so a process reads each version once and keeps it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from budgets.models import Price, PriceVersion
from budgets.states import INPUT_UNITS, TOKEN_UNITS, PriceBasis

Steps = tuple[tuple[int, int], ...]
"""Rates of one unit as (over input tokens, nano-dollars), cheapest step first."""


@dataclass(frozen=True, slots=True)
class RateSet:
    """The rates of a model from a date on (UTC; None: always)."""

    effective_from: dt.date | None
    steps: Mapping[str, Steps]


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """A priced model. `sets` are in the order of their dates."""

    price_id: int
    model: str
    pattern: re.Pattern[str]
    basis: PriceBasis
    sets: tuple[RateSet, ...]

    def cost(self, units: Mapping[str, int], *, on: dt.date) -> dict[str, int] | None:
        """Return the nano-dollars of each unit of one message of that day; None when a unit in use has no rate.

        A step is chosen by the message's whole input and applies to all of its tokens, as providers bill.
        """
        steps = self._in_force(on).steps
        if any(quantity and unit not in steps for unit, quantity in units.items()):
            return None
        size = sum(units.get(unit, 0) for unit in INPUT_UNITS)
        return {unit: quantity * _rate(steps[unit], size) if quantity else 0 for unit, quantity in units.items()}

    def _in_force(self, on: dt.date) -> RateSet:
        begun = [rates for rates in self.sets if rates.effective_from is None or rates.effective_from <= on]
        return begun[-1] if begun else self.sets[0]

    def weight(self, on: dt.date) -> int:
        """Return the dearest rate of any token on that day: a measure to compare models by."""
        steps = self._in_force(on).steps
        return max(nano for unit in TOKEN_UNITS for _, nano in steps.get(unit, ((0, 0),)))


def _rate(steps: Steps, size: int) -> int:
    return [nano for over, nano in steps if over == 0 or size > over][-1]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All prices of one version."""

    version_id: int
    prices: tuple[ModelPrice, ...]

    def find(self, model: str) -> ModelPrice | None:
        """Return the price of a model by any of its names, or None."""
        name = model.lower()
        return next((price for price in self.prices if price.pattern.search(name)), None)

    def get(self, price_id: int) -> ModelPrice:
        """Return the price with this id."""
        return next(price for price in self.prices if price.price_id == price_id)

    def dearest(self, units: Mapping[str, int], *, on: dt.date) -> ModelPrice:
        """Return the model that would make this message dearest: what a message without a price is counted at."""
        able = [price for price in self.prices if price.cost(units, on=on) is not None]
        return max(able, key=lambda price: (sum((price.cost(units, on=on) or {}).values()), price.weight(on)))


@lru_cache(maxsize=8)
def catalogue(version_id: int) -> Catalogue:
    """Return the prices of a version."""
    rows = Price.objects.filter(version_id=version_id).prefetch_related("rates")
    return Catalogue(version_id, tuple(_model_price(row) for row in rows))


def _model_price(row: Price) -> ModelPrice:
    grouped: dict[dt.date | None, dict[str, list[tuple[int, int]]]] = {}
    for rate in row.rates.all():
        steps = grouped.setdefault(rate.effective_from, {}).setdefault(rate.unit, [])
        steps.append((rate.over_input_tokens, rate.nano_usd))
    ordered = sorted(grouped, key=lambda day: day or dt.date.min)
    sets = tuple(RateSet(day, {unit: tuple(sorted(steps)) for unit, steps in grouped[day].items()}) for day in ordered)
    return ModelPrice(row.pk, row.model, re.compile(row.pattern), PriceBasis(row.basis), sets)


def current_catalogue() -> Catalogue | None:
    """Return the newest prices, or None before the first import (one query)."""
    newest = PriceVersion.objects.order_by("-pk").values_list("pk", flat=True).first()
    return catalogue(newest) if newest else None


def price_of(model: str) -> ModelPrice | None:
    """Return the price new messages of this model get, or None: unknown is not zero."""
    prices = current_catalogue()
    return prices.find(model) if prices else None


def is_priced(model: str) -> bool:
    """Return whether runs of this model can be admitted: it has a price, or is free by declaration."""
    return price_of(model) is not None
