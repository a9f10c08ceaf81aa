"""What other workers of this machine have left: turns that go on without them, those that nobody can go on with, and processes whose
turn is over already.
"""

from __future__ import annotations

import structlog

from execution import actions, queries
from execution.models import Execution, Worker
from execution.providers import registry
from execution.shim import processes, taking
from execution.states import EXECUTION, SpendStage
from fleet.kernel import steadiness

log = structlog.get_logger(__name__)


def left_to(worker: Worker) -> list[Execution]:
    """Return the turns this worker can adopt, and let the sweep look at once at those that nobody can.

    One statement while no other worker of this machine has died or left something.
    """
    held = list(queries.held_by_others(worker))
    orphaned = [row for row in held if _has_lost_its_worker(row)]
    late = [row for row in held if vars(row)["lease_is_over"] and row not in orphaned]
    if late and steadiness.is_given():  # its worker lives, but seems to be frozen or cut off
        orphaned += late
    if not orphaned:
        return []
    actions.bury_dead_workers(believe_silence=False)
    left = [row for row in orphaned if _goes_on(row)]
    if len(left) < len(orphaned):
        actions.sweep()
    return left


def end_what_is_over() -> None:
    """End the processes that wait for another worker though their turn is closed: the worker that had written the end died before it
    could tell the shim. One statement while there are such.
    """
    left = {int(waits.run): waits for waits in taking.waiting()}
    if not left:
        return
    for pk in Execution.objects.filter(pk__in=left, state__in=EXECUTION.final).values_list("pk", flat=True):
        log.info("execution.left_process_ended", execution=pk, gone=taking.end(left[pk]))


def _has_lost_its_worker(row: Execution) -> bool:
    owner = row.owner
    if owner is None or owner.stopped_at is not None:
        return True
    return processes.proven_gone(owner.boot_id, owner.pid, owner.pid_started_at)


def _goes_on(row: Execution) -> bool:
    adoptable = row.spend_stage == SpendStage.RELEASED and row.marker and registry.get(row.provider).capabilities.adopts
    return bool(adoptable and row.pid and processes.is_alive(row.pid, row.pid_started_at or 0.0))
