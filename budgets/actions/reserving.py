"""Reserve: before a run may spend, every budget it counts on keeps a slice for it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping

from django.db import connection, transaction

from budgets import events
from budgets.actions.windows import open_windows
from budgets.models import Budget, Reservation, in_scopes
from budgets.policies import Place, Refusal, judge, no_price, refused
from budgets.queries.prices import price_of
from budgets.states import PriceBasis, ReservationState
from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError, StateConflict

LEASE = dt.timedelta(minutes=5)
"""How long a hold stands without a sign of life: a report, or `renew` by whoever runs it, or keeps it waiting."""

# Every message waits for these two. Written out they take a third of the time the ORM needs to phrase them.
_PRESENT = """
    WITH in_force AS (
        SELECT budget.id AS budget_id, budget.metric, budget.mode, present.id AS window_id
        FROM unnest(%(kinds)s::text[], %(ids)s::text[]) AS asked (kind, id)
        JOIN budgets_budget AS budget ON (budget.scope_kind, budget.scope_id) = (asked.kind, asked.id) AND budget.active
        LEFT JOIN budgets_budgetwindow AS present
            ON present.budget_id = budget.id AND present.starts_at <= %(now)s AND present.ends_at > %(now)s)
    SELECT in_force.*, present.ends_at, present.limit_amount, present.posted, present.pending
    FROM in_force JOIN budgets_budgetwindow AS present ON present.id = in_force.window_id
    WHERE NOT EXISTS (SELECT FROM in_force WHERE window_id IS NULL)
    ORDER BY present.id FOR NO KEY UPDATE OF present
"""
_HOLD = """
    WITH
    asked AS (SELECT * FROM unnest(%(budgets)s::bigint[], %(windows)s::bigint[], %(amounts)s::bigint[])
        AS asked (budget_id, window_id, amount)),
    made AS (INSERT INTO budgets_reservation (attempt, state, scopes, model, cost_nano_usd, overran, lease_until)
        VALUES (%(attempt)s, 'held', %(scopes)s, %(model)s, 0, FALSE, statement_timestamp() + %(lease)s)
        ON CONFLICT (attempt) DO NOTHING RETURNING *),
    legs AS (INSERT INTO budgets_reservationleg (reservation_id, budget_id, window_id, granted, held, overrun)
        SELECT made.id, asked.budget_id, asked.window_id, asked.amount, asked.amount, 0 FROM made, asked),
    raised AS (UPDATE budgets_budgetwindow AS present SET pending = present.pending + asked.amount
        FROM made, asked WHERE present.id = asked.window_id)
    SELECT * FROM made
"""


def reserve(*, attempt: str, scopes: Mapping[str, str], model: str, by: Actor) -> Reservation:
    """Hold a slice of every budget in force for these scopes, `{kind: id}`, and return the reservation.

    `attempt` is the caller's unique key: repeating it returns the same reservation and holds nothing more. Raises BudgetRefused
    (wait, too_big, spent, unknown_price) with nothing held, and StateConflict when the attempt was made for something else.
    """
    price = price_of(model)
    if price is None:
        raise no_price(model)
    named = {kind: str(identifier) for kind, identifier in scopes.items()}
    asked = Reservation(attempt=attempt, scopes=named, model=model)
    with transaction.atomic(savepoint=False):
        answer = _hold(asked, price.basis, by)
    if isinstance(answer, FleetError):  # raised out here, so that the caller can still write down the refusal
        raise answer
    return answer


def _hold(asked: Reservation, basis: PriceBasis, by: Actor) -> Reservation | FleetError:
    places = _places(asked.scopes)
    grants = judge(places, basis)
    if isinstance(grants, Refusal):
        existing = Reservation.objects.filter(attempt=asked.attempt).first()  # not refused for what it holds itself
        return _same(existing, asked) if existing else refused(grants)
    held = {place: grants[place.metric] for place in places}
    return _write(asked, held, by) or _same(Reservation.objects.get(attempt=asked.attempt), asked)


def _places(scopes: Mapping[str, str]) -> list[Place]:
    """Return the present windows of the budgets in force, locked by ascending id; none is locked before all exist."""
    now = clock.now()
    while not (places := _present(scopes, now)):
        in_force = Budget.objects.filter(in_scopes(scopes), active=True).values_list("pk", flat=True)
        if not open_windows(in_force, now):  # it also finds those that another run has made meanwhile
            return []
    return places


def _present(scopes: Mapping[str, str], now: dt.datetime) -> list[Place]:
    with connection.cursor() as cursor:
        cursor.execute(_PRESENT, {"kinds": list(scopes), "ids": list(scopes.values()), "now": now})
        return [Place(*row) for row in cursor.fetchall()]


def _same(existing: Reservation, asked: Reservation) -> Reservation | StateConflict:
    if (existing.scopes, existing.model) == (asked.scopes, asked.model):
        return existing
    return StateConflict(
        f"The attempt “{asked.attempt}” has already reserved for something else.",
        why=f"It was made for {existing.scopes} with {existing.model}.",
        next_step="Use another key for another attempt.",
        code="idempotency_mismatch",
    )


def _write(asked: Reservation, held: Mapping[Place, int], by: Actor) -> Reservation | None:
    """Insert the reservation and its legs and raise what the windows hold, in one statement; None when the attempt exists."""
    facts = {
        "budgets": [place.budget_id for place in held],
        "windows": [place.window_id for place in held],
        "amounts": list(held.values()),
        "attempt": asked.attempt,
        "scopes": json.dumps(asked.scopes),
        "model": asked.model,
        "lease": LEASE,
    }
    made = next(iter(Reservation.objects.raw(_HOLD, facts)), None)
    if made:
        journal.record(
            events.RESERVATION_HELD,
            by=by,
            subject=("reservation", made.pk),
            attempt=made.attempt,
            model=made.model,
            scopes=made.scopes,
            held={str(place.budget_id): amount for place, amount in held.items()},
        )
    return made


def renew(reservation_ids: Iterable[int]) -> int:
    """Extend the leases of these holds, as a run's sign of life; return how many were still held."""
    rows = Reservation.objects.filter(pk__in=reservation_ids, state=ReservationState.HELD)
    return rows.update(lease_until=clock.db_now(LEASE))
