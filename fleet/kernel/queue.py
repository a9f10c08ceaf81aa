"""Calling on a worker, after commit. A message is only a hint: it may be lost, doubled or late, and PostgreSQL decides.

Whoever enqueues must have written a row from which a sweep can find the work again.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from kombu.entity import Exchange, Queue

log = structlog.get_logger(__name__)

# After a failed publish nobody waits for Redis again for this long: the sweeps find the row within seconds anyway.
PAUSE_AFTER_FAILURE_SECONDS = 5.0
_silent_until = 0.0


def enqueue(job: str, *, queue: str | None = None, **arguments: Any) -> None:
    """Ask for `job` (`<app>.<verb>`) with these keyword arguments once the current transaction has committed."""
    transaction.on_commit(lambda: publish(job, arguments, queue=queue), robust=True)


def connect() -> bool:
    """Open the connection to the broker ahead of the first hint, which would wait for it; return whether the broker answered."""
    try:
        with current_app.producer_pool.acquire(block=True) as producer:
            return producer.channel is not None  # reading it connects
    except Exception as error:
        log.info("queue.not_connected", error=str(error))
        return False


def own(name: str) -> Queue:
    """Return a queue that one process reads; all of them are entered in one exchange, so that nothing is left of one but its entry."""
    return Queue(name, Exchange("fleet.own", type="direct"), routing_key=name)


def forget(name: str) -> None:
    """Clear away the queue of a process that is over, with what nobody has read. Lost like any hint when the broker is down."""
    if time.monotonic() < _silent_until or current_app.conf.task_always_eager:
        return
    try:
        with current_app.producer_pool.acquire(block=True, timeout=1) as producer:
            bound = own(name)(producer.channel)
            bound.declare()  # the broker's client only removes the entries that it has made
            bound.delete()
    except Exception as error:
        log.info("queue.not_forgotten", queue=name, error=str(error))


def publish(job: str, arguments: dict[str, Any], *, queue: str | None = None) -> bool:
    """Send the hint now; return whether the broker took it. Never raises for a broker that is down or frozen."""
    global _silent_until
    if time.monotonic() < _silent_until:
        return False
    if current_app.conf.task_always_eager:
        current_app.tasks[job].apply(kwargs=arguments)
        return True
    try:
        to = {} if queue is None else {"queue": own(queue), "declare": []}
        current_app.send_task(job, kwargs=arguments, ignore_result=True, retry=False, **to)
    except Exception as error:
        _silent_until = time.monotonic() + PAUSE_AFTER_FAILURE_SECONDS
        log.warning("queue.hint_lost", job=job, error=str(error))
        return False
    return True
