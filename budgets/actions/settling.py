"""Settle, release, hold as uncertain: how a reservation ends, once, in whatever order and however often it is asked."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import partial

from django.db import transaction
from django.db.models import QuerySet

from budgets import events
from budgets.actions.legs import open_books
from budgets.actions.metering import locked_reservation, revive
from budgets.actions.reserving import LEASE
from budgets.models import Reservation
from budgets.states import RESERVATION, ReservationState
from fleet.kernel import clock, steadiness
from fleet.kernel.actors import Actor
from fleet.kernel.sweeping import each
from fleet.kernel.transitions import move

UNCERTAIN_FOR = dt.timedelta(hours=24)
"""How long one slice stays held for a run that vanished, unless somebody settles it first."""

SWEEP_LIMIT = 200
_SWEEP = Actor.system("sweep")


def settle(*, reservation_id: int, by: Actor) -> Reservation:
    """End a reservation whose run is over: what was not used goes back. Does nothing when it has ended already."""
    return _end(reservation_id, ReservationState.SETTLED, events.RESERVATION_SETTLED, by)


def release(*, reservation_id: int, by: Actor) -> Reservation:
    """Give back the hold of a run that will not happen. Does nothing when the reservation has ended already."""
    return _end(reservation_id, ReservationState.RELEASED, events.RESERVATION_RELEASED, by)


@transaction.atomic(savepoint=False)
def _end(reservation_id: int, to: ReservationState, event: str, by: Actor) -> Reservation:
    row = locked_reservation(reservation_id)
    if not row.is_live:
        return row
    books = open_books(row)
    returned = books.give_back()
    books.save()
    details = {"cost_nano_usd": row.cost_nano_usd, "returned": returned}
    return move(row, RESERVATION, to, by=by, event=event, details=details, ended_at=clock.now())


@transaction.atomic
def hold_uncertain(*, reservation_id: int, by: Actor) -> Reservation:
    """Keep what is held, at most one slice per budget, for a run that may have spent more than it reported.

    It ends by `settle` once that is known, or is released after 24 hours. Does nothing unless the reservation is held.
    """
    row = locked_reservation(reservation_id)
    return _to_uncertain(row, by) if row.state == ReservationState.HELD else row


def _to_uncertain(row: Reservation, by: Actor) -> Reservation:
    held = {str(leg.budget_id): leg.held for leg in row.legs.all() if leg.held}
    return move(
        row,
        RESERVATION,
        ReservationState.UNCERTAIN,
        by=by,
        event=events.RESERVATION_UNCERTAIN,
        details={"held": held, "cost_nano_usd": row.cost_nano_usd, "attempt": row.attempt},
        uncertain_until=clock.db_now(UNCERTAIN_FOR),
    )


@transaction.atomic
def hold_again(*, reservation_id: int, by: Actor) -> bool:
    """Hold again what became uncertain although its run has not begun. False when the reservation has ended: that is final.

    May raise NotFound.
    """
    row = locked_reservation(reservation_id)
    if row.state == ReservationState.UNCERTAIN:
        revive(row, by=by, lease_until=clock.db_now(LEASE))
    return row.is_live


@dataclass(frozen=True, slots=True)
class Swept:
    """How many reservations a sweep found without a sign of life, and how many uncertain ones it gave back."""

    uncertain: int
    released: int


def sweep_reservations(limit: int = SWEEP_LIMIT) -> Swept:
    """Make holds uncertain whose lease ended, and release those that were uncertain for too long; each in its own transaction.

    Does nothing for some seconds after the database's clock has leapt: then leases seem to be over that are not.
    """
    if not steadiness.is_given():
        return Swept(uncertain=0, released=0)
    lapsed = Reservation.objects.filter(state=ReservationState.HELD, lease_until__lt=clock.db_now())
    overdue = Reservation.objects.filter(state=ReservationState.UNCERTAIN, uncertain_until__lt=clock.db_now())
    return Swept(
        uncertain=each(partial(_sweep, lapsed), _first(lapsed, "lease_until", limit), what="lapsed_reservation"),
        released=each(partial(_sweep, overdue), _first(overdue, "uncertain_until", limit), what="overdue_reservation"),
    )


def _first(rows: QuerySet[Reservation], order: str, limit: int) -> list[int]:
    return list(rows.order_by(order).values_list("pk", flat=True)[:limit])


@transaction.atomic
def _sweep(rows: QuerySet[Reservation], pk: int) -> bool:
    """Take one reservation a step further, unless it came back to life, has ended, or is being worked on right now."""
    row = rows.select_for_update(skip_locked=True).filter(pk=pk).first()
    if row is None:
        return False
    if row.state == ReservationState.HELD:
        _to_uncertain(row, _SWEEP)
    else:
        release(reservation_id=row.pk, by=_SWEEP)
    return True
