"""What was used: sums over the ledger, the only source of these numbers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate

from budgets.models import TokenLedger
from budgets.models.periods import bounds
from budgets.queries.wording import money_text
from budgets.states import TOKEN_UNITS, Period, PriceBasis, Scope, Unit
from fleet.kernel import clock


@dataclass(frozen=True, slots=True)
class Used:
    """What was used: money at list price, the part of it that is billed, the part counted for want of a price, and units."""

    cost_nano_usd: int = 0
    billed_nano_usd: int = 0
    unpriced_nano_usd: int = 0
    units: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Return the tokens of all kinds."""
        return sum(self.units.get(unit, 0) for unit in TOKEN_UNITS)

    @property
    def runs(self) -> int:
        """Return the provider turns that used anything."""
        return self.units.get(Unit.RUN, 0)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A bot's usage over some days. `days` are newest first, without days on which nothing was used."""

    identity_slug: str
    since: dt.datetime
    as_of: dt.datetime
    total: Used
    days: tuple[tuple[dt.date, Used], ...]
    models: tuple[tuple[str, Used], ...]

    @property
    def sentence(self) -> str:
        """Return the total as a bot says it."""
        used = self.total
        if not used.runs:
            return "I have used nothing."
        runs = f"{used.runs:,} run{'' if used.runs == 1 else 's'}"
        text = f"{runs}, {used.tokens:,} tokens, {money_text(used.cost_nano_usd)} at list price"
        if used.billed_nano_usd != used.cost_nano_usd:
            text += f" ({money_text(used.billed_nano_usd)} billed per token)"
        if used.unpriced_nano_usd:
            text += (
                f"; {money_text(used.unpriced_nano_usd)} of it for models without a price, counted as the dearest one"
            )
        return f"{text}."


def usage_of(identity_slug: str, days: int = 1, *, timezone: str = "UTC") -> UsageReport:
    """Return what a bot used today and on the `days - 1` days before, in that timezone (one query)."""
    zone, now = ZoneInfo(timezone), clock.now()
    first = now.astimezone(zone).date() - dt.timedelta(days=max(days, 1) - 1)
    since = dt.datetime.combine(first, dt.time(), tzinfo=zone).astimezone(dt.UTC)
    rows = TokenLedger.objects.filter(identity_slug=identity_slug, at__gte=since)
    grouped = _summed(rows.annotate(day=TruncDate("at", tzinfo=zone)), "day", "model")
    return UsageReport(
        identity_slug=identity_slug,
        since=since,
        as_of=now,
        total=_used(grouped),
        days=tuple((day, _used(part)) for day, part in sorted(_by("day", grouped).items(), reverse=True)),
        models=tuple((model, _used(part)) for model, part in sorted(_by("model", grouped).items())),
    )


def _summed(rows: QuerySet[TokenLedger], *keys: str) -> list[dict[str, Any]]:
    return list(
        rows.order_by()
        .values(*keys, "unit", "basis")
        .annotate(
            used=Sum("quantity"), cost=Coalesce(Sum("cost_nano_usd"), 0), billed=Coalesce(Sum("billed_nano_usd"), 0)
        )
    )


def _by(key: str, rows: Iterable[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def _used(rows: Iterable[dict[str, Any]]) -> Used:
    rows = list(rows)
    units: dict[str, int] = {}
    for row in rows:
        units[row["unit"]] = units.get(row["unit"], 0) + int(row["used"])
    return Used(
        cost_nano_usd=sum(int(row["cost"]) for row in rows),
        billed_nano_usd=sum(int(row["billed"]) for row in rows),
        unpriced_nano_usd=sum(int(row["cost"]) for row in rows if row["basis"] == PriceBasis.UNKNOWN),
        units=units,
    )


def usage_sentence(identity_slug: str) -> str:
    """Return what a bot used today (UTC), as it says it."""
    return f"Today (UTC): {usage_of(identity_slug).sentence}"


def spent(scope_kind: str, scope_id: str, period: str = Period.DAY, *, timezone: str = "UTC") -> int:
    """Return the nano-dollars at list price a scope has used in the present period of the ledger, budget or not."""
    rows = in_period(period, timezone=timezone).filter(_in_scope(scope_kind, scope_id))
    total: int = rows.aggregate(total=Coalesce(Sum("cost_nano_usd"), 0))["total"]
    return total


def spent_by_bot(slugs: Sequence[str], period: str = Period.DAY) -> dict[str, int]:
    """Return the same for each of these bots (one query, or none for no bots)."""
    rows = in_period(period).filter(identity_slug__in=slugs).order_by()
    found = dict(rows.values_list("identity_slug").annotate(total=Sum("cost_nano_usd")))
    return {slug: found.get(slug, 0) for slug in slugs}


def in_period(period: str, *, timezone: str = "UTC") -> QuerySet[TokenLedger]:
    """Return the ledger's rows of the present period: what `today` means wherever the ledger is asked."""
    start, end = bounds(period, clock.now(), timezone=timezone)
    return TokenLedger.objects.filter(at__gte=start, at__lt=end)


def _in_scope(scope_kind: str, scope_id: str) -> Q:
    if scope_kind == Scope.FLEET:
        return Q()
    if scope_kind == Scope.IDENTITY:
        return Q(identity_slug=scope_id)
    return Q(reservation__scopes__contains={scope_kind: scope_id})
