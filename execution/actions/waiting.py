"""What waits for a worker stays paid for: its reservation is kept alive, and what has lost it goes back to admission.

A reservation lives by signs of life. A worker gives them for what it holds; for what nobody has taken yet, the sweep does. It may find
that nobody swept for long (everything was down) and that the budgets' own sweep came first. Then the hold is uncertain, although nothing
has begun, and is held again; or it went back, and the execution ends unspent. Until the sweep has looked, no claim takes such a row.
"""

from __future__ import annotations

from django.db import transaction

from budgets import actions as budget_actions
from budgets.models import Reservation
from budgets.states import ReservationState
from execution.actions.closing import Ending, close
from execution.models import Execution
from execution.policies import UNPAID
from execution.states import Cause, ExecutionState, OutcomeClass
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.kernel.sweeping import each

BATCH = 50
MOST_RENEWED = 1000  # every two seconds, of what has half of its five minutes left: enough for 75,000 that wait
_BY = Actor.system("sweep")
_GONE_BACK = Ending(
    ExecutionState.FAILED,
    OutcomeClass.BUDGET,
    "It waited for a worker for so long that the budget's hold for it went back, so it was not begun and nothing was spent. "
    "Send it again; if it waits again, an administrator looks at the Runner page.",
    cause=Cause.HOLD_ENDED,
    gone=True,
)


def keep_paid() -> int:
    """Keep the reservations of queued executions, and settle what became of the others; return how many of those there were."""
    _renew()
    unpaid = Execution.objects.filter(UNPAID, state=ExecutionState.QUEUED).order_by("pk")
    return each(_look_after, list(unpaid.values_list("pk", flat=True)[:BATCH]), what="hold")


@transaction.atomic
def _renew() -> None:
    """Give a sign of life for what waits, the nearest end first. Two sweeps at once share the work: neither waits for the other's rows."""
    waiting = Execution.objects.filter(state=ExecutionState.QUEUED, reservation_id__isnull=False)
    ending = Reservation.objects.filter(
        pk__in=waiting.values("reservation_id"),
        state=ReservationState.HELD,
        lease_until__lt=clock.db_now(budget_actions.LEASE / 2),
    )
    soonest = (
        ending.order_by("lease_until").select_for_update(skip_locked=True, no_key=True).values_list("pk", flat=True)
    )
    # Not one statement: PostgreSQL may run a bounded, locking subquery again and again, and each time it finds the next rows.
    if due := list(soonest[:MOST_RENEWED]):
        budget_actions.renew(due)


@transaction.atomic
def _look_after(identifier: int) -> bool:
    """Hold again what only waits, or end what holds nothing any more. Its row is locked: a claim comes before or after."""
    queued = Execution.objects.filter(pk=identifier, state=ExecutionState.QUEUED)
    row = queued.select_for_update(no_key=True).first()
    if row is None or row.reservation_id is None:
        return False
    if budget_actions.hold_again(reservation_id=row.reservation_id, by=_BY):
        return True
    return close(queued, ending=_GONE_BACK, by=_BY) is not None
