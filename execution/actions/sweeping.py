"""The sweep: finds, from PostgreSQL alone, what dead workers and kill orders left behind.

It runs in every worker and in the runner, is tiny, goes from the oldest lease on, and repeats each guard in its UPDATE, so that
several sweeps at once do no harm. Only the database's clock decides that a lease is over.
"""

from __future__ import annotations

import datetime as dt

import structlog
from django.db import transaction
from django.db.models import Exists, F, OuterRef

from execution import events
from execution.actions.claiming import give_back, held_back
from execution.actions.closing import Ending, close, note_gone
from execution.actions.holding import settle_held_of_the_dead
from execution.actions.workers import retire_worker
from execution.models import Execution, ExecutionQuerySet, Worker
from execution.policies import check_not_held_back
from execution.shim import processes
from execution.states import EXECUTION, LEASED, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock, steadiness
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from fleet.kernel.sweeping import each
from governance.models import KillEpoch, StopLine
from governance.states import OrderState

log = structlog.get_logger(__name__)
BATCH = 50
SILENT = dt.timedelta(seconds=60)  # a worker that has not beaten for so long has fenced itself long ago
_BY = Actor.system("sweep")
_LOST = (
    "The worker that ran this was lost in the middle of it, and its answer with it. It may have been paid for, so it is not "
    "repeated by itself. Please ask again if you still need it."
)


def sweep() -> int:
    """Give back or close what lost workers held, end what kill orders hold back; return how many executions were touched."""
    steady = steadiness.is_given()
    bury_dead_workers(believe_silence=steady)
    settle_held_of_the_dead()
    rows = _over() if steady else _over().filter(owner__stopped_at__isnull=False)
    over = rows.order_by("lease_until").values_list("pk", flat=True)[:BATCH]
    return each(_settle, list(over), what="lease") + silence() + each(_prove_gone, _unproven(), what="stop_line")


def _over() -> ExecutionQuerySet:
    return Execution.objects.filter(state__in=LEASED, lease_until__lt=clock.db_now())


@transaction.atomic
def _settle(identifier: int) -> bool:
    """Requeue what never spent anything; close as lost what may have. True when this sweep did it."""
    rows = _over().filter(pk=identifier)
    if give_back(rows.exclude(spend_stage=SpendStage.RELEASED), by=_BY, why="its worker was lost"):
        return True
    row = rows.first()
    if row is None:
        return False
    log.warning("execution.lost", execution=identifier, worker=str(row.owner_id))
    ending = Ending(ExecutionState.LOST, OutcomeClass.LOST, _LOST, gone=_is_gone(row), fields={"epoch": F("epoch") + 1})
    return close(rows, ending=ending, by=_BY) is not None


def _unproven() -> list[int]:
    """Return executions that have ended and whose processes an order's receipt still waits to see gone."""
    open_lines = StopLine.objects.filter(kind="process", quiet_at=None).exclude(order__state=OrderState.LIFTED)
    waited_for = [int(subject) for subject in open_lines.order_by("pk").values_list("subject", flat=True)[:BATCH]]
    return list(Execution.objects.filter(pk__in=waited_for, state__in=EXECUTION.final).values_list("pk", flat=True))


def _prove_gone(identifier: int) -> bool:
    row = Execution.objects.get(pk=identifier)
    if not _is_gone(row):
        return False
    note_gone(execution=row, by=_BY)
    return True


def _is_gone(row: Execution) -> bool:
    return processes.proven_gone(row.boot_id, row.pid, row.pid_started_at)


def bury_dead_workers(*, believe_silence: bool = True) -> None:
    """Declare workers lost: those of this host as soon as their process is gone, others when they have been silent for long.

    With `believe_silence` off (the clock that measures it has leapt) only a process that is gone counts.

    The leases of one that died here are ended at once, but only when its process trees are gone too: nothing may start beside them.
    """
    silent = Worker.objects.filter(beat_at__lt=clock.db_now(-SILENT)).values("pk")
    waiting = Worker.objects.filter(stopped_at=None).annotate(silent=Exists(silent.filter(pk=OuterRef("pk"))))
    for worker in waiting.order_by("beat_at")[:BATCH]:
        died_here = processes.proven_gone(worker.boot_id, worker.pid, worker.pid_started_at)
        if (worker.silent and believe_silence) or (died_here and _trees_are_gone(worker)):
            _bury(worker)


def _trees_are_gone(worker: Worker) -> bool:
    return all(_is_gone(row) for row in Execution.objects.filter(owner=worker, state__in=LEASED, pid__isnull=False))


@transaction.atomic
def _bury(worker: Worker) -> None:
    if retire_worker(worker_id=worker.pk, event=events.WORKER_LOST, by=_BY):
        log.warning("worker.lost", worker=str(worker.pk), host=worker.host, pid=worker.pid)
        Execution.objects.filter(owner=worker, state__in=LEASED).update(
            lease_until=clock.db_now(-dt.timedelta(seconds=1))
        )


def silence() -> int:
    """End the queued executions that an order in force holds back; return how many. Nothing was spent on them."""
    behind = Execution.objects.filter(state=ExecutionState.QUEUED).exclude(
        kill_epoch__in=KillEpoch.objects.values("value")
    )
    return each(_end_if_held_back, behind.select_related("identity").order_by("pk")[:BATCH], what="held_back")


@transaction.atomic
def _end_if_held_back(row: Execution) -> bool:
    queued = Execution.objects.filter(pk=row.pk, epoch=row.epoch, state=ExecutionState.QUEUED)
    try:
        epoch = check_not_held_back(row)
    except Refused as refusal:
        return close(queued, ending=held_back(refusal), by=_BY) is not None
    queued.update(kill_epoch=epoch)
    return False
