"""How long a lost worker stays unnoticed: one that is killed on this host, and one on another host that falls silent; and how long a
turn waits that was left to it, until another worker has it.

The other host is a worker's row of another boot, which nobody renews: that is all a host that went away leaves behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figure, p50, p95
from bench.headless import headless
from tests.product import ROOT

if TYPE_CHECKING:
    from execution.models import Worker
    from tests.execution.running import CeleryWorker

KILLS = 8
FREEZES = 40
POLL_SECONDS = 0.005


def run() -> list[Figure]:
    """Kill workers beside one that stays and the runner, then let one of another host go silent in the middle of a turn."""
    with headless() as directory:
        return _measured(directory)


def _measured(directory: Path) -> list[Figure]:
    from django.conf import settings

    from fleet.kernel import queue
    from tests.execution.running import CeleryWorker

    queue.connect()  # as whoever takes messages in does before the first (gateways.warmup)
    stays = CeleryWorker(directory / "stays").start()
    variables = {**os.environ, "DJANGO_SETTINGS_MODULE": "fleet.settings.base", "FLEET_SECRET_KEY": settings.SECRET_KEY}
    runner = subprocess.Popen([sys.executable, str(ROOT / "manage.py"), "runner"], env=variables, cwd=ROOT)
    try:
        here, gone = zip(*(_killed_here(directory / str(number)) for number in range(KILLS)), strict=True)
        frozen = _frozen(directory / "frozen")
        elsewhere = _silent_elsewhere()
    finally:
        stays.stop()
        runner.terminate()
        runner.wait(30)
    note = f"the longest of {KILLS}; SIGKILL to the row that says so"
    return [
        Figure("Lost worker noticed, same host", max(here), "s", target=1.0, note=note),
        Figure("Lost worker noticed, another host", elsewhere, "s", target=35.0, note="last lease to the turn's end"),
        *_fallback("frozen (SIGSTOP)", frozen),
        *_fallback("just killed (SIGKILL)", gone),
    ]


def _fallback(how: str, seen: Iterable[float | None]) -> list[Figure]:
    """Return how long the turns of a session waited whose worker is in this state."""
    waited = [milliseconds for milliseconds in seen if milliseconds is not None]
    name, note = f"Preferred worker {how}: queued to claimed by another", f"{len(waited)} turns, two workers"
    return [
        Figure(f"{name}, p50", p50(waited), "ms", target=200.0, note=note),
        Figure(f"{name}, p95", p95(waited), "ms", target=200.0, note=note),
    ]


def _killed_here(var: Path) -> tuple[float, float | None]:
    """Return after how many seconds it was noticed, and how many milliseconds a turn waited that had been left to it."""
    from execution.models import Worker
    from fleet.kernel import clock

    worker, row = _another(var)
    session = _session_of(row.pk)
    began = clock.now()
    worker.kill()
    waited = _waited(session, row.pk)
    _wait_for(lambda: Worker.objects.filter(pk=row.pk, stopped_at__isnull=False).exists())
    noticed = Worker.objects.get(pk=row.pk).stopped_at or began
    return (noticed - began).total_seconds(), waited


def _frozen(var: Path) -> list[float | None]:
    """Return how many milliseconds turns waited that were left to a worker that stands still, and beats in between."""
    worker, row = _another(var)
    waited = []
    for _ in range(FREEZES):
        session = _session_of(row.pk)
        worker.process.send_signal(signal.SIGSTOP)
        waited.append(_waited(session, row.pk))
        worker.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
    worker.stop()
    return waited


def _another(var: Path) -> tuple[CeleryWorker, Worker]:
    """Start one more worker and let it settle."""
    from execution.models import Worker
    from tests.execution.running import CeleryWorker

    known = set(Worker.objects.values_list("pk", flat=True))
    worker = CeleryWorker(var).start()
    (row,) = Worker.objects.exclude(pk__in=known)
    time.sleep(1)
    return worker, row


def _session_of(worker: uuid.UUID) -> str:
    """Return a session whose turns go to this worker first."""
    from django.db import connection

    from execution.actions import HOME

    with connection.cursor() as cursor:
        while True:
            session = str(uuid.uuid4())
            cursor.execute(HOME.format(session="%s"), [session, session])
            if cursor.fetchone() == (worker,):
                return session


def _waited(session: str, worker: uuid.UUID) -> float | None:
    """Queue a turn that is left to this worker first; return the milliseconds until another one had it.

    None when it was not left to it: that it is lost was noticed before.
    """
    from execution.models import Execution
    from tests.factories import execution as made

    queued = made.queued("mock:words=1", session_id=session)
    _wait_for(lambda: Execution.objects.filter(pk=queued.pk, ended_at__isnull=False).exists())
    row = Execution.objects.get(pk=queued.pk)
    if row.claimed_at is None or row.owner_id == worker:
        raise RuntimeError("The turn was not taken by another worker.")
    return (row.claimed_at - row.queued_at).total_seconds() * 1000 if queued.preferred_worker_id == worker else None


def _silent_elsewhere() -> float:
    from django.db import transaction

    from execution.models import Execution
    from tests.factories import execution as made

    far = made.WorkerFactory(host="elsewhere", boot_id="another-boot/1")
    with transaction.atomic():  # or the worker that stays would take it first
        execution = made.running(worker=far)
    began = time.monotonic()
    _wait_for(lambda: Execution.objects.filter(pk=execution.pk, ended_at__isnull=False).exists())
    return time.monotonic() - began


def _wait_for(fits: Callable[[], Any], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not fits():
        if time.monotonic() > until:
            raise TimeoutError("It was not noticed.")
        time.sleep(POLL_SECONDS)
