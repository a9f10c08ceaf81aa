"""Meter: what a running provider reports moves from held to posted, message by message, and the slice is topped up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction

from budgets import events
from budgets.actions.alerting import raise_alerts
from budgets.actions.ledger import new_rows
from budgets.actions.legs import Books, open_books
from budgets.actions.reserving import LEASE
from budgets.models import Reservation, TokenLedger
from budgets.ports import Metered, UsageUnits
from budgets.states import RESERVATION, Billing, PriceBasis, ReservationState, Scope
from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import NotFound, Refused
from fleet.kernel.transitions import move
from governance import policies as governance_policies

_BY = Actor.system("meter")


@transaction.atomic
def meter(
    *, reservation_id: int, execution_id: int, usages: Iterable[UsageUnits], provider: str, billing: str
) -> Metered:
    """Post what these provider messages used and return what it cost; the truth is posted even above what was held.

    Idempotent: a message counts once, and a later report of it with higher numbers adds the difference. `billing` is `api` or
    `subscription`. When 80 % of the slice are used it is topped up; where that is refused, `exhausted` asks the worker to stop.
    A report is a sign of life: it renews the lease, and what was uncertain is held again.
    """
    now = clock.now()
    reservation = locked_reservation(reservation_id)
    is_first = reservation.execution_id is None
    reservation.execution_id = reservation.execution_id or execution_id
    if reservation.state == ReservationState.UNCERTAIN:
        revive(reservation, by=_BY)
    rows = new_rows(reservation, execution_id, usages, provider=provider, billing=Billing(billing), now=now)
    exhausted = _post(reservation, rows, now)
    _remember(reservation, rows)
    return Metered(
        cost_nano_usd=sum(row.cost_nano_usd for row in rows),
        total_nano_usd=reservation.cost_nano_usd,
        exhausted=exhausted or not reservation.is_live,
        basis=_basis(reservation, rows, is_first=is_first),
    )


def locked_reservation(reservation_id: int) -> Reservation:
    """Return the reservation, locked until the transaction ends; NotFound when there is none. It is locked before any window."""
    row = Reservation.objects.select_for_update().filter(pk=reservation_id).first()
    if row is None:
        raise NotFound(f"There is no reservation {reservation_id}.", next_step="Reserve before you spend.")
    return row


def revive(reservation: Reservation, *, by: Actor, **fields: Any) -> None:
    """Hold again what was uncertain, since its run has given a sign of life."""
    event = events.RESERVATION_REVIVED
    move(reservation, RESERVATION, ReservationState.HELD, by=by, event=event, uncertain_until=None, **fields)


def _post(reservation: Reservation, rows: Sequence[TokenLedger], now: dt.datetime) -> bool:
    """Write the rows and move their amounts; return whether a hard budget has nothing left for this run."""
    books = open_books(reservation, {now, *(row.at for row in rows)})
    TokenLedger.objects.bulk_create(rows)  # only now: a window that was just made has counted what was there before
    for row in sorted(rows, key=lambda row: row.at):
        books.post(row)
    exhausted = False
    if reservation.is_live:
        books.carry_over()
        exhausted = books.top_up(allowed=lambda: _may_continue(reservation))
    raise_alerts(books.windows(), by=_BY)
    books.save()
    _journal(reservation, rows, books)
    return exhausted


def _may_continue(reservation: Reservation) -> bool:
    """Return whether more may be held: not against a kill order."""
    try:
        governance_policies.check_not_killed(
            identity_slug=reservation.scopes.get(Scope.IDENTITY, ""),
            execution_id=reservation.execution_id,
            running=True,
        )
    except Refused:
        return False
    return True


def _journal(reservation: Reservation, rows: Sequence[TokenLedger], books: Books) -> None:
    subject = ("reservation", reservation.pk)
    if books.topped_up:
        journal.record(events.RESERVATION_TOPPED_UP, by=_BY, subject=subject, added=books.topped_up)
    if books.overran and not reservation.overran:
        reservation.overran = True
        journal.record(events.RESERVATION_OVERRAN, by=_BY, subject=subject, overrun=books.overran)
    for model in sorted({row.model for row in rows if row.basis == PriceBasis.UNKNOWN}):
        journal.record(events.PRICE_MISSING, by=_BY, subject=subject, model=model, counted_as="the dearest model")


def _remember(reservation: Reservation, rows: Sequence[TokenLedger]) -> None:
    """Keep the running total, and take the report as a sign of life."""
    reservation.cost_nano_usd += sum(row.cost_nano_usd for row in rows)
    reservation.lease_until = clock.db_now(LEASE)
    reservation.save(update_fields=["cost_nano_usd", "execution_id", "overran", "lease_until"])


def _basis(reservation: Reservation, rows: Sequence[TokenLedger], *, is_first: bool) -> PriceBasis:
    """Return the least certain basis of all that the total is made of: a report that is repeated adds no row, and says the same."""
    found = {row.basis for row in rows if row.price_id}
    if not is_first:
        priced = TokenLedger.objects.filter(reservation=reservation, price__isnull=False).order_by()
        found |= set(priced.values_list("basis", flat=True).distinct())
    for basis in (PriceBasis.UNKNOWN, PriceBasis.PRICED):
        if basis in found:
            return basis
    return PriceBasis.FREE
