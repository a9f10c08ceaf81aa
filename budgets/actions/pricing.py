"""Importing prices from the catalogue that ships with genai-prices: no download, reviewed with the lock file.

The catalogue takes a second and 100 MB to load, so it is read here and nowhere else; running processes use the imported rows.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import rfc8785
from django.db import connection, transaction

from budgets import events
from budgets.models import Price, PriceVersion
from budgets.states import PRICED_UNITS, PriceBasis, Unit
from fleet.kernel import journal
from fleet.kernel.actors import Actor

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

CATALOGUES = ("anthropic", "openai")
"""Providers of the catalogue whose models a bot can run."""

FREE = (("mock", "mock-1", r"^mock-\d+$"),)
"""Models that cost nothing, said explicitly: provider, model, pattern."""

FORMAT = 2
"""Grows when the meaning of imported rows changes, so that the same catalogue is imported again."""

# A thousand rows, before the first page is seen: the ORM needs ten times as long for them.
_RATES = """
    INSERT INTO budgets_rate (price_id, unit, effective_from, over_input_tokens, nano_usd)
    SELECT * FROM unnest(%s::bigint[], %s::text[], %s::date[], %s::bigint[], %s::bigint[])
"""

_NANO = 10**9
_USAGE_KEYS = {
    Unit.CACHE_READ: ("cache_read_tokens",),
    Unit.CACHE_WRITE_5M: ("cache_write_tokens", "cache_write_5m_tokens"),
    Unit.CACHE_WRITE_1H: ("cache_write_tokens", "cache_write_1h_tokens"),
}


@dataclass(frozen=True, slots=True)
class _Line:
    """A rate before it has a row."""

    unit: str
    effective_from: dt.date | None
    over_input_tokens: int
    nano_usd: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """A model before it has a row."""

    provider: str
    model: str
    pattern: str
    basis: PriceBasis
    lines: tuple[_Line, ...]


def import_prices(*, by: Actor) -> PriceVersion:
    """Import the installed catalogue as a new version, unless the newest version came from it already; return the newest."""
    source = f"genai-prices {version('genai-prices')}, format {FORMAT}"
    newest = PriceVersion.objects.order_by("-pk").first()
    if newest and newest.source == source:
        return newest
    return _store(source, [*_free_entries(), *_catalogue_entries()], by)


@transaction.atomic
def _store(source: str, entries: list[_Entry], by: Actor) -> PriceVersion:
    digest = hashlib.sha256(rfc8785.dumps([source, *(_as_json(entry) for entry in entries)])).hexdigest()
    row, created = PriceVersion.objects.get_or_create(
        sha256=digest, defaults={"source": source, "imported_by": by.name}
    )
    if created:
        _store_entries(row, entries)
        journal.record(
            events.PRICES_IMPORTED, by=by, subject=("prices", row.pk), source=source, sha256=digest, models=len(entries)
        )
    return row


def _store_entries(row: PriceVersion, entries: list[_Entry]) -> None:
    prices = Price.objects.bulk_create(
        Price(version=row, provider=entry.provider, model=entry.model, pattern=entry.pattern, basis=entry.basis)
        for entry in entries
    )
    rates = [
        (price.pk, line.unit, line.effective_from, line.over_input_tokens, line.nano_usd)
        for price, entry in zip(prices, entries, strict=True)
        for line in entry.lines
    ]
    with connection.cursor() as cursor:
        cursor.execute(_RATES, [*map(list, zip(*rates, strict=True))])


def _as_json(entry: _Entry) -> list[Any]:
    lines = [[line.unit, str(line.effective_from), line.over_input_tokens, line.nano_usd] for line in entry.lines]
    return [entry.provider, entry.model, entry.pattern, entry.basis.value, lines]


def _free_entries() -> Iterator[_Entry]:
    lines = tuple(_Line(unit.value, None, 0, 0) for unit in PRICED_UNITS)
    for provider, model, pattern in FREE:
        yield _Entry(provider, model, pattern, PriceBasis.FREE, lines)


def _catalogue_entries() -> Iterator[_Entry]:
    """Yield the models of the catalogue that can be expressed exactly; the others stay without a price, hence refused."""
    from genai_prices.data_snapshot import get_snapshot

    for provider in get_snapshot().providers:
        if provider.id in CATALOGUES:
            for model in provider.models:
                pattern, lines = _pattern(model.match), _lines_of(model)
                if pattern and lines:
                    yield _Entry(provider.id, model.id, pattern, PriceBasis.PRICED, lines)


def _pattern(clause: Any) -> str | None:
    """Return a regular expression for the catalogue's match clause, on lower-case names; None for clauses we do not use."""
    from genai_prices import types as catalogue

    match clause:
        case catalogue.ClauseOr():
            parts = [_pattern(part) for part in clause.or_]
            return None if None in parts else "|".join(f"(?:{part})" for part in parts)
        case catalogue.ClauseEquals():
            return rf"^{re.escape(clause.equals.lower())}\Z"
        case catalogue.ClauseStartsWith():
            return f"^{re.escape(clause.starts_with.lower())}"
        case catalogue.ClauseContains():
            return re.escape(clause.contains.lower())
        case catalogue.ClauseRegex():
            return str(clause.regex)
    return None


def _lines_of(model: ModelInfo) -> tuple[_Line, ...]:
    """Return the model's rates, or nothing when one of them depends on more than a start date or is no whole nano-dollar."""
    from genai_prices.types import ConditionalPrice, StartDateConstraint

    sets = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    lines: list[_Line] = []
    for conditional in sets:
        start = conditional.constraint
        if start is not None and not isinstance(start, StartDateConstraint):
            return ()
        lines.extend(_lines_of_set(conditional.prices, start.start_date if start else None))
    return tuple(lines) if all(line.nano_usd >= 0 for line in lines) else ()


def _lines_of_set(prices: ModelPrice, since: dt.date | None) -> Iterator[_Line]:
    starts = {0}
    for value in vars(prices).values():
        starts.update(tier.start for tier in getattr(value, "tiers", ()))
    for unit in PRICED_UNITS:
        if unit == Unit.WEB_SEARCHES and prices.web_searches_kcount is None:
            continue
        for start in sorted(starts):
            yield _Line(unit.value, since, start, _rate(prices, unit, start))


def _rate(prices: ModelPrice, unit: Unit, start: int) -> int:
    """Return the nano-dollars that one more unit adds to a message of more than `start` input tokens; -1 when not whole.

    The catalogue's own arithmetic is asked, so its rules for units without a rate of their own hold here too.
    """
    size = start + 1 if start else 0
    nano = (_total(prices, unit, 1, size) - _total(prices, unit, 0, size)) * _NANO
    return int(nano) if nano == nano.to_integral_value() else -1


def _total(prices: ModelPrice, unit: Unit, quantity: int, size: int) -> Decimal:
    from genai_prices import Usage

    usage = {"input_tokens": size, "output_tokens": 0}
    if unit == Unit.WEB_SEARCHES:
        usage["web_searches"] = quantity
    elif unit == Unit.OUTPUT:
        usage["output_tokens"] = quantity
    else:
        usage["input_tokens"] += quantity
        usage.update(dict.fromkeys(_USAGE_KEYS.get(unit, ()), quantity))
    return prices.calc_price(Usage(**usage))["total_price"]
