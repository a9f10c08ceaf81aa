"""How long a lost worker stays unnoticed: one that is killed on this host, and one on another host that falls silent.

The other host is a worker's row of another boot, which nobody renews: that is all a host that went away leaves behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.headless import headless
from tests.product import ROOT

KILLS = 8
POLL_SECONDS = 0.005


def run() -> list[Figure]:
    """Kill workers beside one that stays and the runner, then let one of another host go silent in the middle of a turn."""
    with headless() as directory:
        return _measured(directory)


def _measured(directory: Path) -> list[Figure]:
    from django.conf import settings

    from tests.execution.running import CeleryWorker

    stays = CeleryWorker(directory / "stays").start()
    variables = {**os.environ, "DJANGO_SETTINGS_MODULE": "fleet.settings.base", "FLEET_SECRET_KEY": settings.SECRET_KEY}
    runner = subprocess.Popen([sys.executable, str(ROOT / "manage.py"), "runner"], env=variables, cwd=ROOT)
    try:
        here = [_killed_here(directory / str(number)) for number in range(KILLS)]
        elsewhere = _silent_elsewhere()
    finally:
        stays.stop()
        runner.terminate()
        runner.wait(30)
    note = f"the longest of {KILLS}; SIGKILL to the row that says so"
    return [
        Figure("Lost worker noticed, same host", max(here), "s", target=1.0, note=note),
        Figure("Lost worker noticed, another host", elsewhere, "s", target=35.0, note="last lease to the turn's end"),
    ]


def _killed_here(var: Path) -> float:
    from execution.models import Worker
    from tests.execution.running import CeleryWorker

    known = set(Worker.objects.values_list("pk", flat=True))
    worker = CeleryWorker(var).start()
    (row,) = Worker.objects.exclude(pk__in=known)
    time.sleep(1)
    began = time.monotonic()
    worker.kill()
    _wait_for(lambda: Worker.objects.filter(pk=row.pk, stopped_at__isnull=False).exists())
    return time.monotonic() - began


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
