"""The sweep: finds, from PostgreSQL alone, what dead workers and kill orders left behind, and what waits.

It runs in every worker and in the runner, is tiny, goes from the oldest lease on, and repeats each guard in its UPDATE, so that
several sweeps at once do no harm. Only the database's clock decides that a lease is over.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import partial

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from execution import events, queries
from execution.actions.claiming import give_back, held_back
from execution.actions.closing import close, note_gone
from execution.actions.holding import settle_held_of_the_dead
from execution.actions.recovering import Halted, close_lost, halted_by, is_gone
from execution.actions.waiting import keep_paid
from execution.actions.workers import retire_worker
from execution.models import Execution, ExecutionQuerySet, Worker
from execution.policies import check_not_held_back
from execution.shim import leftovers, processes, taking
from execution.states import EXECUTION, LEASED, ExecutionState, SpendStage
from fleet.kernel import clock, steadiness
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from fleet.kernel.sweeping import each
from governance.models import KillEpoch

log = structlog.get_logger(__name__)
BATCH = 50
MOST_LOOKED_AT = 500  # what may still go on must not hide what is over
SILENT = dt.timedelta(seconds=60)  # a worker that has not beaten for so long has fenced itself long ago
_BY = Actor.system("sweep")


def sweep() -> int:
    """Give back or close what lost workers held, end what kill orders hold back, keep what waits paid for.

    Returns how many executions were touched.
    """
    steady = steadiness.is_given()
    bury_dead_workers(believe_silence=steady)
    settle_held_of_the_dead()
    rows = _over() if steady else _over().filter(owner__stopped_at__isnull=False)
    lost = list(rows.select_related("identity").order_by("lease_until")[:MOST_LOOKED_AT])
    waiting = [row for row in lost if _may_go_on(row)]
    stopped = _stopped(waiting)
    over = [row.pk for row in lost if row not in waiting or row.pk in stopped][:BATCH]
    settle = partial(_settle, stopped=stopped)
    touched = each(settle, over, what="lease") + silence()
    return touched + keep_paid() + each(_prove_gone, _unproven(), what="stop_line")


def _stopped(waiting: Sequence[Execution]) -> dict[int, Halted]:
    """End those that wait for another worker and are to be stopped: nobody may ever come. Return how each has to be closed."""
    halted = halted_by(waiting)
    return {row.pk: halted[row.pk] for row in waiting if row.pk in halted and _ended(row)}


def _ended(row: Execution) -> bool:
    process = processes.of(row)
    return taking.end(taking.Waiting(process, str(row.pk), row.epoch)) or leftovers.end(process)


def _over() -> ExecutionQuerySet:
    """Return what nobody holds: its lease is over, or its worker is, and its process would be here if there were one."""
    stopped = Exists(Worker.objects.filter(pk=OuterRef("owner"), stopped_at__isnull=False))
    left = Q(stopped) & Q(boot_id__in=("", processes.boot_id()))
    return Execution.objects.filter(Q(lease_until__lt=clock.db_now()) | left, state__in=LEASED)


def _may_go_on(row: Execution) -> bool:
    """Return whether its process lives here: a worker may still adopt it, or it is about to end. Not for ever."""
    lives = row.boot_id == processes.boot_id() and row.pid is not None and not _is_over(row)
    return lives and not Execution.objects.filter(pk=row.pk, lease_until__lt=clock.db_now(-_waited_for())).exists()


def _is_over(row: Execution) -> bool:
    return processes.proven_gone(row.boot_id, row.pid, row.pid_started_at)


def _waited_for() -> dt.timedelta:
    return dt.timedelta(seconds=settings.FLEET_DETACHED_SECONDS)


@transaction.atomic
def _settle(identifier: int, *, stopped: Mapping[int, Halted]) -> bool:
    """Requeue what never spent anything; close as lost what may have. True when this sweep did it."""
    rows = _over().filter(pk=identifier)
    if give_back(rows.exclude(spend_stage=SpendStage.RELEASED), by=_BY, why="its worker was lost"):
        return True
    row = rows.first()
    if row is None or _may_go_on(row):
        return False
    log.warning("execution.lost", execution=identifier, worker=str(row.owner_id))
    return close_lost(rows, row, by=_BY, halted=stopped.get(identifier)) is not None


def _unproven() -> list[int]:
    """Return executions that have ended and whose processes an order's receipt still waits to see gone."""
    ended = Execution.objects.filter(pk__in=queries.waited_for(), state__in=EXECUTION.final)
    return list(ended.values_list("pk", flat=True))


def _prove_gone(identifier: int) -> bool:
    row = Execution.objects.get(pk=identifier)
    if not is_gone(row):
        return False
    note_gone(execution=row, by=_BY)
    return True


def bury_dead_workers(*, believe_silence: bool = True) -> None:
    """Declare workers lost: those of this host as soon as their process is gone, others when they have been silent for long.

    With `believe_silence` off (the clock that measures it has leapt) only a process that is gone counts.
    """
    silent = Worker.objects.filter(beat_at__lt=clock.db_now(-SILENT)).values("pk")
    waiting = Worker.objects.filter(stopped_at=None).annotate(silent=Exists(silent.filter(pk=OuterRef("pk"))))
    for worker in waiting.order_by("beat_at")[:BATCH]:
        died_here = processes.proven_gone(worker.boot_id, worker.pid, worker.pid_started_at)
        if (worker.silent and believe_silence) or died_here:
            _bury(worker)


@transaction.atomic
def _bury(worker: Worker) -> None:
    if retire_worker(worker_id=worker.pk, event=events.WORKER_LOST, by=_BY):
        log.warning("worker.lost", worker=str(worker.pk), host=worker.host, pid=worker.pid)


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
