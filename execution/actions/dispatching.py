"""Which worker hears of an execution first: the one that holds its session, and before 200 ms are over any other.

PostgreSQL knows who holds what. A hint is sent to one worker's own queue; for so long the claim lets nobody else take the execution,
except when that worker is gone (`claiming`). Whatever of this is lost costs time and nothing else.
"""

from __future__ import annotations

import threading
import uuid

import structlog
from django.db import DatabaseError, connection, transaction
from django.db.models.expressions import RawSQL

from execution.models import Execution, Worker
from execution.states import ExecutionState
from fleet.kernel import queue as hints

log = structlog.get_logger(__name__)
WORKERS = "workers"  # the live topic to which every worker listens
# So long an execution is left to the worker that holds its session; the rest of 200 ms is what the way to another one takes.
ALONE_SECONDS = 0.12

# The worker for a session, if there are several: who holds its process, else always the same one, so that the one that was told to
# expect a turn is the one that gets it. Only workers that beat, take work, read hints of their own and have a slot free.
HOME = """
    SELECT worker.id FROM execution_worker AS worker
    WHERE worker.stopped_at IS NULL AND worker.draining_at IS NULL AND worker.listens
        AND worker.beat_at > statement_timestamp() - interval '12 seconds'
        AND worker.slots > (SELECT count(*) FROM execution_execution AS taken
            WHERE taken.owner_id = worker.id AND taken.state IN ('starting', 'running', 'waiting_approval'))
        AND 1 < (SELECT count(*) FROM execution_worker AS other WHERE other.stopped_at IS NULL AND other.listens
            AND other.beat_at > statement_timestamp() - interval '12 seconds')
    ORDER BY EXISTS (SELECT FROM execution_heldprocess AS held
            WHERE held.worker_id = worker.id AND held.session_id = {session}::text) DESC,
        md5(worker.id::text || {session}::text)
    LIMIT 1
"""
# Whether a worker holds a process for a session: then none has to be started for its next turn.
HELD = "EXISTS (SELECT FROM execution_heldprocess WHERE session_id = {session}::text AND end_requested_at IS NULL)"
_ELSEWHERE = """
    SELECT worker.id FROM execution_worker AS worker
    WHERE worker.stopped_at IS NULL AND worker.draining_at IS NULL AND worker.listens AND worker.id <> %s
        AND worker.beat_at > statement_timestamp() - interval '12 seconds'
    ORDER BY worker.slots - (SELECT count(*) FROM execution_execution AS taken
        WHERE taken.owner_id = worker.id AND taken.state IN ('starting', 'running', 'waiting_approval')) DESC
    LIMIT 1
"""


def home_of(session_id: str) -> RawSQL:
    """Return, as an expression, the worker that should run this session's turn; NULL when it does not matter."""
    return RawSQL(HOME.format(session="%s"), [session_id, session_id])  # noqa: S611 - its only values are parameters


def queue_of(worker_id: uuid.UUID | None) -> str | None:
    """Return the queue that only this worker reads; None for the one that all read."""
    return f"fleet.worker.{worker_id}" if worker_id else None


def nudge(execution_id: int, epoch: int, *, worker_id: uuid.UUID | None = None) -> None:
    """Hint, after commit, that this execution waits: to one worker first if one is named. The drain makes good what is lost."""
    hints.enqueue("execution.run", queue=queue_of(worker_id), execution_id=execution_id, epoch=epoch)
    if worker_id:
        transaction.on_commit(lambda: _look_again(execution_id, epoch, worker_id), robust=True)


def pass_on(*, execution_id: int, epoch: int, worker_id: uuid.UUID) -> None:
    """Let another worker have what was left to this one, which cannot take it; nothing when it was not left to it."""
    waiting = Execution.objects.filter(pk=execution_id, epoch=epoch, state=ExecutionState.QUEUED)
    if waiting.filter(preferred_worker_id=worker_id).update(preferred_worker_id=None):
        _tell_another(execution_id, epoch, worker_id)


def _look_again(execution_id: int, epoch: int, worker_id: uuid.UUID) -> None:
    timer = threading.Timer(ALONE_SECONDS, _tell_another_if_it_waits, args=(execution_id, epoch, worker_id))
    timer.daemon = True
    timer.start()


def _tell_another_if_it_waits(execution_id: int, epoch: int, worker_id: uuid.UUID) -> None:
    try:
        if Execution.objects.filter(pk=execution_id, epoch=epoch, state=ExecutionState.QUEUED).exists():
            _tell_another(execution_id, epoch, worker_id)
    except DatabaseError as error:
        log.info("execution.not_told_again", execution=execution_id, error=str(error))  # the drain finds it
    finally:
        connection.close()


def _tell_another(execution_id: int, epoch: int, worker_id: uuid.UUID) -> None:
    """Hint to the worker with the most slots free, and clear away the queue of one that is gone."""
    other = next(iter(Worker.objects.raw(_ELSEWHERE, [worker_id])), None)
    arguments = {"execution_id": execution_id, "epoch": epoch}
    hints.publish("execution.run", arguments, queue=queue_of(other.pk if other else None))
    if Worker.objects.filter(pk=worker_id).exclude(stopped_at=None).exists():
        hints.forget(str(queue_of(worker_id)))
