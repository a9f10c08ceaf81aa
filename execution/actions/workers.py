"""Worker incarnations: born with a random id, alive as long as they beat, never revived."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from django.conf import settings
from django.db import transaction

from budgets import actions as budget_actions
from execution import events
from execution.actions.claiming import LEASE
from execution.actions.dispatching import WORKERS, queue_of
from execution.models import Execution, Worker
from execution.ports import ProcessFacts
from execution.states import LEASED
from fleet.kernel import clock, journal, live
from fleet.kernel import queue as hints
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import NotFound


@transaction.atomic
def register_worker(
    *, process: ProcessFacts, slots: int, by: Actor, listens: bool = False, unconfined: str = ""
) -> Worker:
    """Write down a new incarnation of a worker process.

    `listens`: it reads a queue of its own. `unconfined` says why CLIs get no sandbox here; empty: they do.
    """
    worker = Worker.objects.create(
        host=process.host,
        boot_id=process.boot_id,
        pid=process.pid,
        pid_started_at=process.started_at,
        slots=slots,
        listens=listens,
        version=settings.FLEET_VERSION,
        unconfined=unconfined,
    )
    facts = {"host": worker.host, "pid": worker.pid, "slots": slots}
    facts |= {"unconfined": unconfined} if unconfined else {}
    journal.record(events.WORKER_STARTED, by=by, subject=("worker", worker.pk), **facts)
    return worker


def beat(*, worker_id: uuid.UUID, held: Collection[Execution]) -> bool:
    """Renew the worker's row, and the leases of the executions it really holds and of their reservations.

    False when the worker was declared lost meanwhile: then it holds nothing any more.
    """
    alive = Worker.objects.filter(pk=worker_id, stopped_at=None).update(beat_at=clock.db_now())
    if alive and held:
        leased = Execution.objects.filter(pk__in=[row.pk for row in held], owner_id=worker_id, state__in=LEASED)
        leased.update(lease_until=clock.db_now(LEASE))
        budget_actions.renew([row.reservation_id for row in held if row.reservation_id is not None])
    return bool(alive)


@transaction.atomic
def retire_worker(*, worker_id: uuid.UUID, event: str, by: Actor) -> bool:
    """Mark an incarnation as over (`WORKER_STOPPED` or `WORKER_LOST`); False when it was already."""
    changed = Worker.objects.filter(pk=worker_id, stopped_at=None).update(stopped_at=clock.db_now())
    if changed:
        journal.record(event, by=by, subject=("worker", worker_id))
        transaction.on_commit(lambda: hints.forget(str(queue_of(worker_id))), robust=True)
    return bool(changed)


@transaction.atomic
def set_draining(*, worker_id: uuid.UUID, draining: bool, by: Actor) -> Worker:
    """Let a worker take nothing new and end what stands by, or let it take work again. Asking twice is harmless. May raise NotFound."""
    live_worker = Worker.objects.filter(pk=worker_id, stopped_at=None)
    row = live_worker.first()
    if row is None:
        raise NotFound("This worker is over already.", next_step="Look at the Runner page as it is now.")
    if live_worker.filter(draining_at__isnull=draining).update(draining_at=clock.db_now() if draining else None):
        event = events.WORKER_DRAINED if draining else events.WORKER_RESUMED
        journal.record(event, by=by, subject=("worker", worker_id), host=row.host, pid=row.pid)
        live.hint(WORKERS, worker=str(worker_id))
    return row
