"""What can happen to an execution. Subject: ("execution", id)."""

QUEUED = "execution.execution.queued"
JOINED = "execution.execution.joined"
CLAIMED = "execution.execution.claimed"
RELEASED = "execution.execution.released"
REQUEUED = "execution.execution.requeued"
STOP_REQUESTED = "execution.execution.stop_requested"
FINISHED = "execution.execution.finished"  # any end; details: state, outcome, origin_kind, origin_id
ORPHANED = "execution.execution.orphaned"
WORKER_STARTED = "execution.worker.started"
WORKER_STOPPED = "execution.worker.stopped"
WORKER_LOST = "execution.worker.lost"
