"""Celery entry point of execution, and what makes a Celery process a worker.

A message is a hint: acknowledged early, never retried, worth nothing by itself. The row in PostgreSQL decides, and what no message
brought is found by the drain.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from execution.engine import supervisor
from execution.engine.standby import Expected
from fleet.kernel import queue as hints


@shared_task(name="execution.run", ignore_result=True, acks_late=False, max_retries=0)
def run(execution_id: int, epoch: int) -> None:
    """Offer a queued execution to this worker; when it is full, the drain of whoever gets free finds it."""
    worker = supervisor.current()
    if worker is not None and not worker.offer(execution_id, epoch):
        worker.pass_on(execution_id, epoch)


@shared_task(name="execution.expect", ignore_result=True, acks_late=False, max_retries=0)
def expect(**turn: Any) -> None:
    """Let the process of an expected turn start; see `execution.actions.expect`."""
    worker = supervisor.current()
    if worker is not None:
        worker.expect(Expected(**turn))


@worker_ready.connect
def begin(sender: Any, **_: Any) -> None:
    """The Celery worker takes messages: begin to supervise, and read the worker's own queue too."""

    def listen(name: str) -> None:
        own = hints.own(name)
        sender.call_soon(sender.add_task_queue, name, exchange=own.exchange.name, routing_key=own.routing_key)

    supervisor.begin(listen=listen)


@worker_shutting_down.connect
def refuse_work(**_: Any) -> None:
    """SIGTERM: take nothing new."""
    worker = supervisor.current()
    if worker is not None:
        worker.refuse_work()


@worker_shutdown.connect
def end(**_: Any) -> None:
    """The Celery worker is about to end: let what runs finish for a while, then end it."""
    supervisor.end()
