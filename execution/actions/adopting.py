"""How another worker comes to own a turn that goes on without the worker that began it."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q

from execution import events
from execution.actions.claiming import LEASE
from execution.models import Execution, ExecutionQuerySet, Worker
from execution.states import LEASED, SpendStage
from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor


@transaction.atomic
def adopt(*, execution_id: int, epoch: int, worker: Worker, by: Actor) -> Execution | None:
    """Take over a released turn whose worker stopped, was declared lost or let its lease run out; None when there is nothing to take.

    Only a worker of the same machine can reach the process. The higher epoch shuts out the worker that had it, in the database as at
    the shim.
    """
    row = next(iter(_left(worker).filter(pk=execution_id, epoch=epoch).update_returning(**_ours(worker))), None)
    if row is not None:
        journal.record(events.ADOPTED, by=by, subject=("execution", row.pk), epoch=row.epoch, worker=str(worker.pk))
    return row


def _left(worker: Worker) -> ExecutionQuerySet:
    stopped = Exists(Worker.objects.filter(pk=OuterRef("owner"), stopped_at__isnull=False))
    running = Execution.objects.filter(state__in=LEASED, spend_stage=SpendStage.RELEASED, boot_id=worker.boot_id)
    return running.exclude(marker="").filter(Q(lease_until__lt=clock.db_now()) | stopped)


def _ours(worker: Worker) -> dict[str, object]:
    return {"owner": worker, "epoch": F("epoch") + 1, "lease_until": clock.db_now(LEASE)}
