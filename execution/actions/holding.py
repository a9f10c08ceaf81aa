"""What is written down of the processes that stay in workers: for dispatch, for people, and as proof of their end."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import QuerySet

from execution import events, queries
from execution.actions.closing import note_process_gone
from execution.actions.dispatching import WORKERS
from execution.models import HeldProcess
from execution.ports import ProcessFacts
from execution.shim import processes
from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import NotFound
from governance import actions as governance_actions
from governance.models import KillOrder, StopLine
from identities.models import Identity
from identities.states import IdentityState

FORGOTTEN = dt.timedelta(days=1)  # after so long nobody waits for proof any more that a process of a lost host is gone
_BY = Actor.system("sweep")
_WEIGH = """
    UPDATE execution_heldprocess AS held SET megabytes = weight.megabytes, weighed_at = statement_timestamp(), worker_id = %s
    FROM unnest(%s::uuid[], %s::int[]) AS weight (id, megabytes) WHERE held.id = weight.id
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A process as its worker sees it. `began_ago` and `idle_for` in seconds; `process` is None for a provider without one."""

    id: uuid.UUID
    identity_id: int
    conversation_id: int | None
    provider: str
    model: str
    session_id: str
    turns: int
    process: ProcessFacts | None
    began_ago: float
    idle_for: float


def note_held(*, worker_id: uuid.UUID, held: Collection[Held]) -> None:
    """Write down that these processes wait in this worker; one statement. What others wrote into the row stays."""
    moving = ["worker", "turns", "idle_since"]
    HeldProcess.objects.bulk_create(
        [_row(worker_id, each) for each in held], update_conflicts=True, unique_fields=["id"], update_fields=moving
    )


def note_weights(*, worker_id: uuid.UUID, megabytes: Mapping[uuid.UUID, int]) -> None:
    """Write down what those that are noted weigh; one statement. Never makes a row: one that is gone must not come back."""
    with connection.cursor() as cursor:
        cursor.execute(_WEIGH, [worker_id, list(megabytes), list(megabytes.values())])


def _row(worker_id: uuid.UUID, held: Held) -> HeldProcess:
    now = clock.now()
    return HeldProcess(
        id=held.id,
        worker_id=worker_id,
        identity_id=held.identity_id,
        conversation_id=held.conversation_id,
        provider=held.provider,
        model=held.model,
        session_id=held.session_id,
        turns=held.turns,
        pid=held.process.pid if held.process else None,
        pid_started_at=held.process.started_at if held.process else None,
        began_at=now - dt.timedelta(seconds=held.began_ago),
        idle_since=now - dt.timedelta(seconds=held.idle_for),
    )


@transaction.atomic
def adopt_prewarmed(*, identity: Identity, provider: str, model: str, conversation_id: int, by: Actor) -> str | None:
    """Return the session of a process that was started ahead for this bot and is this conversation's from now on; None: there is none."""
    free = HeldProcess.objects.filter(
        identity=identity, provider=provider, model=model, conversation_id=None, turns=0, end_requested_at=None
    )
    alive = free.filter(worker__stopped_at=None, worker__draining_at=None)
    row = alive.select_for_update(of=["self"], skip_locked=True).order_by("-idle_since").first()
    if row is None:
        return None
    HeldProcess.objects.filter(pk=row.pk, conversation_id=None).update(conversation_id=conversation_id)
    journal.record(events.PROCESS_ADOPTED, by=by, subject=("process", row.pk), conversation=conversation_id)
    return row.session_id


@transaction.atomic
def request_process_end(*, held_id: uuid.UUID, by: Actor) -> HeldProcess:
    """Ask the worker to end a process that it holds; one that works ends after its turn. Asking twice is harmless. May raise NotFound."""
    row = HeldProcess.objects.select_related("identity").filter(pk=held_id).first()
    if row is None:
        raise NotFound("This process is not held any more.", next_step="Look at the Runner page as it is now.")
    asked = HeldProcess.objects.filter(pk=held_id, end_requested_at=None)
    if asked.update(end_requested_at=clock.db_now(), end_requested_by=by.name[:150]):
        journal.record(events.PROCESS_END_REQUESTED, by=by, subject=("process", row.pk), pid=row.pid)
        live.hint(WORKERS, process=str(row.pk))
    return row


def why_to_end(*, worker_id: uuid.UUID) -> dict[uuid.UUID, str]:
    """Return which of the worker's processes somebody wants gone, or whose bots want none any more, and why; one query."""
    rows = HeldProcess.objects.filter(worker_id=worker_id).select_related("identity", "worker")
    return {row.pk: why for row in rows if (why := _reason(row))}


def _reason(row: HeldProcess) -> str:
    if row.end_requested_at is not None:
        return f"{row.end_requested_by} ended it"
    if row.worker.draining_at is not None:
        return "its worker takes nothing new"
    if row.identity.state != IdentityState.ACTIVE:
        return f"its bot is {row.identity.state}"
    if row.turns and not row.identity.warm:
        return "its bot keeps no process"
    if not row.turns and row.conversation_id is None and not row.identity.prewarmed:
        return "its bot starts none ahead"
    return ""


@transaction.atomic
def note_process_ended(*, held_id: uuid.UUID, why: str, by: Actor, seen_gone: bool = True) -> bool:
    """Strike a process from the notes once it is proven gone, and say so of every execution that it answered."""
    found = HeldProcess.objects.select_for_update(of=["self"]).select_related("worker", "identity")
    row = found.filter(pk=held_id).first()
    if row is None:
        return False
    if seen_gone and row.process:
        note_process_gone(row.process, by=by)
        _close_kill_receipts(row.identity.slug, row.process, by)
    facts = {"pid": row.pid, "session": row.session_id, "turns": row.turns, "why": why, "seen_gone": seen_gone}
    journal.record(events.PROCESS_ENDED, by=by, subject=("process", row.pk), **facts)
    row.delete()
    return True


def _close_kill_receipts(slug: str, process: ProcessFacts, by: Actor) -> None:
    waiting = StopLine.objects.filter(kind="process", subject=queries.idle_subject(process), quiet_at=None).order_by(
        "order_id"
    )
    for line in waiting.select_related("order"):
        note_idle_gone(order=line.order, identity_slug=slug, process=process, by=by)


def note_idle_gone(*, order: KillOrder, identity_slug: str, process: ProcessFacts, by: Actor) -> None:
    """Write into an order's receipt that a process that had nothing to do is gone. Saying so twice changes nothing."""
    governance_actions.record_quiet(
        order=order,
        kind="process",
        subject=queries.idle_subject(process),
        by=by,
        killed=True,
        sentence=f"{identity_slug} had nothing to do: process {process.pid} on {process.host} and its descendants are gone.",
    )


def settle_held(*, worker_id: uuid.UUID, known: Iterable[uuid.UUID], by: Actor) -> int:
    """Strike what this worker no longer knows and what is proven gone: its end could not be written down when it came."""
    return _settle(HeldProcess.objects.filter(worker_id=worker_id).exclude(pk__in=list(known)), by)


def settle_held_of_the_dead() -> int:
    """Strike the processes of workers that are over, as far as they are proven gone, or as nobody can prove it any more."""
    return _settle(HeldProcess.objects.exclude(worker__stopped_at=None), _BY)


def _settle(rows: QuerySet[HeldProcess], by: Actor) -> int:
    ended = 0
    for row in rows.select_related("worker").order_by("pk")[:50]:
        gone = row.pid is None or processes.proven_gone(row.worker.boot_id, row.pid, row.pid_started_at)
        given_up = row.worker.stopped_at is not None and row.worker.stopped_at < clock.now() - FORGOTTEN
        if gone or given_up:
            why = "its worker was gone" if row.worker.stopped_at else "found gone"
            ended += note_process_ended(held_id=row.pk, why=why, by=by, seen_gone=gone)
    return ended
