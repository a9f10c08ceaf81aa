"""How a worker comes to own an execution, opens its spend gate, or gives it back unspent.

Two statements decide: the claim (nobody else may start it) and the release (from here on money may flow). Both compare with the
kill epoch in the same statement, so that an order given in between is never missed.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.db import transaction
from django.db.models import BigIntegerField, F, Subquery, Value
from django.db.models.functions import Coalesce

from execution import events
from execution.actions.closing import Ending, close
from execution.actions.queueing import nudge
from execution.models import Execution, ExecutionQuerySet
from execution.policies import check_not_held_back
from execution.ports import ProcessFacts, UserText
from execution.queries import busy_with_identity
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Fenced, Refused
from governance.models import KillEpoch

LEASE = dt.timedelta(seconds=30)
MOST_ATTEMPTS = 5  # an execution that brings down its worker each time must not go on for ever


@transaction.atomic
def claim(*, execution_id: int, epoch: int, worker_id: uuid.UUID, by: Actor) -> Execution | None:
    """Take a queued execution, or return None when there is nothing to take: done, taken, at the bot's limit, or an old hint.

    An execution that a kill order holds back is ended here, unspent.
    """
    queued = Execution.objects.filter(pk=execution_id, epoch=epoch, state=ExecutionState.QUEUED)
    # The lock on the bot's row makes its concurrency exact: claims of one bot pass here one after the other.
    seen = queued.select_related("identity").select_for_update(of=("identity",), no_key=True).first()
    if seen is None:
        return None
    claimed = _take(queued, seen, worker_id)
    if not claimed and _passed_by_an_order(queued, seen, by):
        claimed = _take(queued, seen, worker_id)
    for row in claimed:
        row.identity = seen.identity
        journal.record(events.CLAIMED, by=by, subject=("execution", row.pk), epoch=row.epoch, attempt=row.attempt)
        return row
    return None


def _take(queued: ExecutionQuerySet, seen: Execution, worker_id: uuid.UUID) -> list[Execution]:
    free = queued.annotate(busy=busy_with_identity(), order=_kill_epoch())
    return free.filter(busy__lt=seen.identity.concurrency, kill_epoch=F("order")).update_returning(
        state=ExecutionState.STARTING,
        owner_id=worker_id,
        lease_until=clock.db_now(LEASE),
        claimed_at=clock.db_now(),
        attempt=F("attempt") + 1,
    )


def _kill_epoch() -> Coalesce:
    return Coalesce(Subquery(KillEpoch.objects.values("value")[:1], output_field=BigIntegerField()), Value(0))


def _passed_by_an_order(queued: ExecutionQuerySet, seen: Execution, by: Actor) -> bool:
    """The kill epoch moved: end the execution if an order reaches it, else note the new epoch and return True."""
    try:
        epoch = check_not_held_back(seen)
    except Refused as refusal:
        close(queued, ending=held_back(refusal), by=by)
        return False
    return queued.exclude(kill_epoch=epoch).update(kill_epoch=epoch) == 1


def held_back(refusal: Refused) -> Ending:
    """Return the ending of what a kill order did not let begin."""
    return Ending(ExecutionState.STOPPED, OutcomeClass.GOVERNANCE, refusal.sentence, gone=True)


@transaction.atomic
def release(
    *, execution: Execution, process: ProcessFacts | None, by: Actor, spawned_ago: dt.timedelta = dt.timedelta()
) -> tuple[UserText, ...]:
    """Open the spend gate: commit "running, this process", and return the texts, as they are at this moment.

    `spawned_ago` says how long the process has been there. May be repeated after a commit whose reply was lost. Raises Refused
    (code `stopped` or `killed`) when it must not begin any more, Fenced when another worker owns it.
    """
    owned = Execution.objects.owned(execution)
    waiting = owned.filter(state=ExecutionState.STARTING, stop_requested_at=None)
    values = _process_columns(process, spawned_ago)
    opened = _open(waiting, values)
    if not opened:
        row = _still_allowed(execution, owned)
        if row.spend_stage == SpendStage.RELEASED:
            return _texts(row)
        opened = _open(waiting, values)
    if not opened:
        raise Fenced(f"Execution {execution.pk} moved on while its gate was opened.")
    (row,) = opened
    journal.record(
        events.RELEASED,
        by=by,
        subject=("execution", row.pk),
        pid=row.pid,
        origin_kind=row.origin_kind,
        origin_id=row.origin_id,
    )
    live.hint(f"execution:{row.pk}", state=row.state)
    return _texts(row)


def _open(waiting: ExecutionQuerySet, values: dict[str, Any]) -> list[Execution]:
    return (
        waiting.annotate(order=_kill_epoch())
        .filter(kill_epoch=F("order"))
        .update_returning(
            state=ExecutionState.RUNNING,
            spend_stage=SpendStage.RELEASED,
            released_at=clock.db_now(),
            lease_until=clock.db_now(LEASE),
            **values,
        )
    )


def _process_columns(process: ProcessFacts | None, spawned_ago: dt.timedelta) -> dict[str, Any]:
    if process is None:
        return {}
    return {
        "pid": process.pid,
        "pid_started_at": process.started_at,
        "host": process.host,
        "boot_id": process.boot_id,
        "spawned_at": clock.db_now(-spawned_ago),
    }


def _still_allowed(execution: Execution, owned: ExecutionQuerySet) -> Execution:
    """Find out why the gate did not open: raise, or return the row when it is open already or only the kill epoch had moved."""
    row = owned.first()
    if row is None:
        raise Fenced(f"Execution {execution.pk} belongs to another worker now.")
    if row.spend_stage == SpendStage.RELEASED:
        return row
    if row.stop_requested_at is not None:
        raise Refused("Stopped before it began.", why=row.stop_reason, code="stopped")
    epoch = check_not_held_back(execution)
    owned.exclude(kill_epoch=epoch).update(kill_epoch=epoch)
    return row


def _texts(row: Execution) -> tuple[UserText, ...]:
    return tuple(UserText(entry["uuid"], entry["text"]) for entry in row.prompt)


@transaction.atomic
def requeue(*, execution: Execution, by: Actor, why: str) -> bool:
    """Give back an execution whose spend gate never opened: it is free, so another worker may start it at once.

    False when it was released, or is not this worker's any more. An execution that was given back too often fails instead.
    """
    owned = Execution.objects.owned(execution).exclude(spend_stage=SpendStage.RELEASED)
    return give_back(owned, by=by, why=why)


def give_back(rows: ExecutionQuerySet, *, by: Actor, why: str) -> bool:
    """Requeue the one unreleased execution that `rows` still matches, in the caller's transaction."""
    if close(rows.filter(attempt__gte=MOST_ATTEMPTS), ending=_worn_out(why), by=by):
        return True
    starting = rows.filter(state=ExecutionState.STARTING, attempt__lt=MOST_ATTEMPTS)
    for row in starting.update_returning(
        state=ExecutionState.QUEUED, epoch=F("epoch") + 1, owner=None, lease_until=None, claimed_at=None
    ):
        journal.record(events.REQUEUED, by=by, subject=("execution", row.pk), epoch=row.epoch, why=why)
        nudge(row.pk, row.epoch)
        return True
    return False


def _worn_out(why: str) -> Ending:
    sentence = (
        f"It could not be started in {MOST_ATTEMPTS} attempts ({why}). Nothing was spent. "
        "See the worker's log; sending the message again starts afresh."
    )
    return Ending(ExecutionState.FAILED, OutcomeClass.ERROR, sentence)
