"""From reports to ledger rows: priced, deduplicated by provider message, and only what is new."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from budgets.models import Reservation, TokenLedger
from budgets.ports import UsageUnits
from budgets.queries.prices import Catalogue, ModelPrice, catalogue, current_catalogue
from budgets.states import Billing, LedgerKind, PriceBasis, Scope, Unit
from fleet.kernel.exceptions import Unavailable


@dataclass
class _Known:
    """What the ledger has of one unit of one message."""

    quantity: int = 0
    reasoning: int = 0
    cost: int = 0
    revision: int = -1


@dataclass
class _Message:
    """What the ledger has of one message. Its first row fixes the time and the price."""

    first: TokenLedger | None = None
    units: dict[str, _Known] = field(default_factory=dict)

    def of(self, unit: str) -> _Known:
        """Return what there is of one unit, nothing to begin with."""
        return self.units.setdefault(unit, _Known())

    def add(self, row: TokenLedger) -> None:
        """Count one row."""
        self.first = self.first or row
        known = self.of(row.unit)
        known.quantity += row.quantity
        known.reasoning += row.reasoning
        known.cost += row.cost_nano_usd
        known.revision = max(known.revision, row.revision)


@dataclass(frozen=True)
class _Report:
    """Where the rows of one report belong, and when it came."""

    now: dt.datetime
    reservation: Reservation
    execution_id: int
    provider: str
    billing: Billing

    def time_of(self, usage: UsageUnits) -> dt.datetime:
        """Return the message's time in UTC: never later than the report."""
        return min(usage.at or self.now, self.now).astimezone(dt.UTC)

    def row(self, message_id: str, unit: str, revision: int, *, cost_nano_usd: int, **fields: object) -> TokenLedger:
        """Return an unsaved row."""
        return TokenLedger(
            reservation=self.reservation,
            execution_id=self.execution_id,
            message_id=message_id,
            unit=unit,
            revision=revision,
            kind=LedgerKind.ADJUSTMENT if revision else LedgerKind.USAGE,
            provider=self.provider,
            billing=self.billing,
            cost_nano_usd=cost_nano_usd,
            billed_nano_usd=cost_nano_usd if self.billing == Billing.API else 0,
            identity_slug=self.reservation.scopes.get(Scope.IDENTITY, ""),
            **fields,
        )


def new_rows(
    reservation: Reservation,
    execution_id: int,
    usages: Iterable[UsageUnits],
    *,
    provider: str,
    billing: Billing,
    now: dt.datetime,
) -> list[TokenLedger]:
    """Return the unsaved rows that bring the ledger up to these reports; nothing for what it knows already.

    The reservation must be locked: it is what keeps two reports of one run apart.
    """
    highest = _highest(usages)
    if not highest:
        return []
    known = _known(execution_id, highest)
    report = _Report(now, reservation, execution_id, provider, billing)
    rows = [
        row for usage in highest.values() for row in _rows_of(report, usage, known.get(usage.message_id, _Message()))
    ]
    if "" not in known:
        rows.append(_run_row(report, next(iter(highest.values()))))
    return rows


def _highest(usages: Iterable[UsageUnits]) -> dict[str, UsageUnits]:
    """Return one usage per message: of each unit the highest number that was reported."""
    found: dict[str, UsageUnits] = {}
    for usage in usages:
        other = found.setdefault(usage.message_id, usage)
        numbers = {unit: max(number, getattr(other, unit)) for unit, number in usage.units().items()}
        found[usage.message_id] = replace(other, reasoning=max(usage.reasoning, other.reasoning), **numbers)
    return found


def _known(execution_id: int, message_ids: Iterable[str]) -> dict[str, _Message]:
    found: dict[str, _Message] = {}
    rows = TokenLedger.objects.filter(execution_id=execution_id, message_id__in=[*message_ids, ""])
    for row in rows.select_related("price").order_by("pk"):
        found.setdefault(row.message_id, _Message()).add(row)
    return found


def _rows_of(report: _Report, usage: UsageUnits, known: _Message) -> list[TokenLedger]:
    """Return the difference between what is now known of a message and what the ledger has of it."""
    at = known.first.at if known.first else report.time_of(usage)
    units = {unit: max(number, known.of(unit).quantity) for unit, number in usage.units().items()}
    price, basis = _price(usage.model, units, known.first, at.date())
    costs = price.cost(units, on=at.date()) or {}
    fixed: dict[str, Any] = {"price_id": price.price_id, "basis": basis, "model": usage.model, "at": at}
    rows = []
    for unit, quantity in units.items():
        before = known.of(unit)
        added = {
            "quantity": quantity - before.quantity,
            "reasoning": max(0, usage.reasoning - before.reasoning) if unit == Unit.OUTPUT else 0,
            "cost_nano_usd": max(0, costs[unit] - before.cost),
        }
        if any(added.values()):
            rows.append(report.row(usage.message_id, unit, before.revision + 1, **added, **fixed))
    return rows


def _price(
    model: str, units: Mapping[str, int], first: TokenLedger | None, on: dt.date
) -> tuple[ModelPrice, PriceBasis]:
    """Return the price of a message: the one it was first counted at, its model's, or the dearest where that is unknown."""
    if first and first.price:
        price = catalogue(first.price.version_id).get(first.price.pk)
        if price.cost(units, on=on) is not None:
            return price, PriceBasis(first.basis)
    prices = _current()
    found = prices.find(model)
    if found and found.cost(units, on=on) is not None:
        return found, found.basis
    return prices.dearest(units, on=on), PriceBasis.UNKNOWN


def _current() -> Catalogue:
    prices = current_catalogue()
    if prices is None:
        raise Unavailable(
            "Usage cannot be priced.", why="No prices were imported.", next_step="Run `manage.py prepare`."
        )
    return prices


def _run_row(report: _Report, usage: UsageUnits) -> TokenLedger:
    """Return the row that counts the run itself, once per execution, in the window of its first message."""
    return report.row(
        "",
        Unit.RUN,
        0,
        quantity=1,
        basis=PriceBasis.FREE,
        cost_nano_usd=0,
        model=usage.model,
        at=report.time_of(usage),
    )
