"""How a worker comes to own an execution, opens its spend gate, or gives it back unspent.

Two statements decide: the claim (nobody else may start it) and the release (from here on money may flow). Both compare with the
kill epoch in the same statement, so that an order given in between is never missed, and look whether the budgets still hold what was
reserved: nothing is spent that is not (`waiting` says what becomes of it).
"""

from __future__ import annotations

import datetime as dt
import uuid

from django.db import transaction
from django.db.models import F

from execution import events
from execution.actions.closing import Ending, close
from execution.actions.dispatching import ALONE_SECONDS, nudge
from execution.models import Execution, ExecutionQuerySet
from execution.policies import check_not_held_back
from execution.ports import ProcessFacts, UserText
from execution.states import LEASED, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.database import COMMITS_EARLY
from fleet.kernel.exceptions import Fenced, Refused
from identities.models import Identity

LEASE = dt.timedelta(seconds=30)
MOST_ATTEMPTS = 5  # an execution that brings down its worker each time must not go on for ever

# Every message waits for these. Written out they take a third of the time the ORM needs to phrase them.
# The lock on the bot's row makes its concurrency exact: claims of one bot pass here one after the other.
_BOT = f"""
    SELECT identity.*, {COMMITS_EARLY} AS early FROM identities_identity AS identity
    WHERE id = (SELECT identity_id FROM execution_execution WHERE id = %s AND epoch = %s AND state = 'queued')
    FOR NO KEY UPDATE
"""  # noqa: S608 - put together from constants
_TAKE = """
    UPDATE execution_execution AS execution
    SET state = 'starting', owner_id = %(worker)s, lease_until = statement_timestamp() + %(lease)s::interval,
        claimed_at = statement_timestamp(), attempt = attempt + 1
    WHERE id = %(id)s AND epoch = %(epoch)s AND state = 'queued'
        AND kill_epoch = COALESCE((SELECT value FROM governance_killepoch), 0)
        AND %(concurrency)s > (SELECT count(*) FROM execution_execution AS held
            WHERE held.identity_id = execution.identity_id AND held.state = ANY(%(leased)s))
        AND (preferred_worker_id IS NULL OR preferred_worker_id = %(worker)s
            OR queued_at < statement_timestamp() - %(alone)s::interval
            OR NOT EXISTS (SELECT FROM execution_worker AS preferred
                WHERE preferred.id = preferred_worker_id AND preferred.stopped_at IS NULL AND preferred.draining_at IS NULL))
        AND NOT EXISTS (SELECT FROM execution_worker AS mine WHERE mine.id = %(worker)s AND mine.draining_at IS NOT NULL)
        AND (execution.reservation_id IS NULL OR EXISTS (SELECT FROM budgets_reservation AS hold
            WHERE hold.id = execution.reservation_id AND hold.state = 'held'))
    RETURNING *
"""
_OPEN = """
    UPDATE execution_execution AS execution
    SET state = 'running', spend_stage = 'released', released_at = statement_timestamp(),
        lease_until = statement_timestamp() + %(lease)s::interval, pid = %(pid)s, pid_started_at = %(pid_started_at)s,
        host = %(host)s, boot_id = %(boot_id)s, marker = %(marker)s, spawned_at = statement_timestamp() - %(spawned_ago)s::interval,
        ready_at = statement_timestamp() - %(ready_ago)s::interval
    WHERE id = %(id)s AND epoch = %(epoch)s AND owner_id = %(worker)s AND claimed_at = %(claimed_at)s AND state = 'starting'
        AND stop_requested_at IS NULL
        AND kill_epoch = COALESCE((SELECT value FROM governance_killepoch), 0)
        AND (reservation_id IS NULL OR EXISTS (SELECT FROM budgets_reservation AS hold
            WHERE hold.id = execution.reservation_id AND hold.state IN ('held', 'uncertain')))
    RETURNING id, prompt
"""


@transaction.atomic
def claim(*, execution_id: int, epoch: int, worker_id: uuid.UUID, by: Actor) -> Execution | None:
    """Take a queued execution, or return None when there is nothing to take: done, taken, at the bot's limit, left to
    the worker that holds its session, not paid for until the sweep has looked, or an old hint.

    An execution that a kill order holds back is ended here, unspent. It does not wait for the disk: a claim that a dying machine forgets
    is found queued, and the release of whoever believes in it is refused, also when the same worker has claimed it again.
    """
    bot = next(iter(Identity.objects.raw(_BOT, [execution_id, epoch])), None)
    if bot is None:
        return None
    queued = Execution.objects.filter(pk=execution_id, epoch=epoch, state=ExecutionState.QUEUED)
    row = _take(execution_id, epoch, bot, worker_id)
    if row is None and _passed_by_an_order(queued, by):
        row = _take(execution_id, epoch, bot, worker_id)
    if row is not None:
        row.identity = bot
        journal.record(events.CLAIMED, by=by, subject=("execution", row.pk), epoch=row.epoch, attempt=row.attempt)
    return row


def _take(execution_id: int, epoch: int, bot: Identity, worker_id: uuid.UUID) -> Execution | None:
    """Take the row, unless the kill epoch moved or its bot has as much to do as it may."""
    values = {
        "id": execution_id,
        "epoch": epoch,
        "worker": worker_id,
        "lease": LEASE,
        "concurrency": bot.concurrency,
        "leased": [str(state) for state in LEASED],
        "alone": dt.timedelta(seconds=ALONE_SECONDS),
    }
    return next(iter(Execution.objects.raw(_TAKE, values)), None)


def _passed_by_an_order(queued: ExecutionQuerySet, by: Actor) -> bool:
    """Has the kill epoch moved? End the execution if an order reaches it, else note the new epoch and return True."""
    seen = queued.select_related("identity").first()
    if seen is None:
        return False
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
    *,
    execution: Execution,
    process: ProcessFacts | None,
    by: Actor,
    spawned_ago: dt.timedelta = dt.timedelta(),
    ready_ago: dt.timedelta = dt.timedelta(),
) -> tuple[UserText, ...]:
    """Open the spend gate: commit "running, this process", and return the texts, as they are at this moment.

    `spawned_ago` and `ready_ago` say how long the process has been there, and ready. May be repeated after a commit whose reply
    was lost. Raises Refused (code `stopped` or `killed`) when it must not begin any more, Fenced when another claim has it, or its
    reservation has ended: then its lease runs out, and it goes back through the queue.
    """
    opened = _open(execution, process, spawned_ago, ready_ago)
    if not opened:
        row = _still_allowed(execution, Execution.objects.owned(execution))
        if row.spend_stage == SpendStage.RELEASED:
            return texts_of(row)
        opened = _open(execution, process, spawned_ago, ready_ago)
    if not opened:
        raise Fenced(f"Execution {execution.pk} moved on while its gate was opened.")
    (row,) = opened
    journal.record(
        events.RELEASED,
        by=by,
        subject=("execution", row.pk),
        pid=process.pid if process else None,
        origin_kind=execution.origin_kind,
        origin_id=execution.origin_id,
    )
    live.hint(f"execution:{row.pk}", state=ExecutionState.RUNNING)
    return texts_of(row)


def _open(
    execution: Execution, process: ProcessFacts | None, spawned_ago: dt.timedelta, ready_ago: dt.timedelta
) -> list[Execution]:
    values = {
        "id": execution.pk,
        "epoch": execution.epoch,
        "worker": execution.owner_id,
        "claimed_at": execution.claimed_at,
        "lease": LEASE,
        "pid": process.pid if process else None,
        "pid_started_at": process.started_at if process else None,
        "host": process.host if process else "",
        "boot_id": process.boot_id if process else "",
        "marker": process.marker if process else "",
        "spawned_ago": spawned_ago if process else None,
        "ready_ago": ready_ago if process else None,
    }
    return list(Execution.objects.raw(_OPEN, values))


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


def texts_of(row: Execution) -> tuple[UserText, ...]:
    """Return the messages of a turn in the order they were said."""
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
