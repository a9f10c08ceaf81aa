"""What can happen to an execution. Subject: ("execution", id), ("worker", id) or ("process", id)."""

QUEUED = "execution.execution.queued"
JOINED = "execution.execution.joined"
CLAIMED = "execution.execution.claimed"
ADOPTED = "execution.execution.adopted"  # another worker goes on with it
RELEASED = "execution.execution.released"
REQUEUED = "execution.execution.requeued"
STOP_REQUESTED = "execution.execution.stop_requested"
OFFER_MADE = (
    "execution.offer.made"  # of all offers: details: uuid, origin_kind, origin_id (of the turn it was offered to)
)
OFFER_HANDED = "execution.offer.handed"
OFFER_TAKEN = "execution.offer.taken"
OFFER_RETURNED = "execution.offer.returned"  # details besides: ended (whether that turn is over), doubtful
OFFER_WITHDRAWN = "execution.offer.withdrawn"
FINISHED = "execution.execution.finished"  # any end; details: state, outcome, origin_kind, origin_id
ORPHANED = "execution.execution.orphaned"
PROVIDER_CHECKED = "execution.provider.checked"  # subject: ("provider", name)
WORKER_STARTED = "execution.worker.started"
WORKER_STOPPED = "execution.worker.stopped"
WORKER_LOST = "execution.worker.lost"
BREAKER_OPENED = "execution.breaker.opened"
BREAKER_PROBED = "execution.breaker.probed"
BREAKER_CLOSED = "execution.breaker.closed"
WORKER_DRAINED = "execution.worker.drained"
WORKER_RESUMED = "execution.worker.resumed"
PROCESS_ADOPTED = "execution.process.adopted"
PROCESS_END_REQUESTED = "execution.process.end_requested"
PROCESS_ENDED = "execution.process.ended"  # details: pid, why, turns; `seen_gone` false when nobody could look
CONNECTION_REFUSED = "execution.egress.refused"  # subject: ("identity", slug); details: host, port, why, times
