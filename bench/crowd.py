"""Fifty executions at once in one worker, answered by the mock: what the worker weighs, and whether a beat comes late.

A beat is late by as much as the database shows more than its five seconds between two of them.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.headless import headless

CROWD = 50
BOTS = 13  # each may work on four things at once
WORDS = 1500  # fifty a second


def run() -> list[Figure]:
    """Queue them, and look at the worker's row and process until the last has ended."""
    with headless() as directory:
        return _measured(directory)


def _measured(directory: Path) -> list[Figure]:
    from tests.execution.running import CeleryWorker
    from tests.factories import execution as made

    worker = CeleryWorker(directory / "worker", FLEET_WORKER_SLOTS=str(CROWD)).start()
    try:
        for _ in range(BOTS):
            bot = made.BotFactory()
            for _ in range(min(4, CROWD)):
                made.queued(f"mock:words={WORDS}", identity=bot)
        late, megabytes, most = _watch(worker)
    finally:
        worker.stop()
    return [
        Figure("50 mock executions at once: latest beat", late, "ms", target=1000, note=f"up to {most} ran at once"),
        Figure(
            "50 mock executions at once: the worker's memory",
            megabytes,
            "MB",
            target=250,
            note="highest; with its shim",
        ),
    ]


def _watch(worker: Any) -> tuple[float, float, int]:
    """Return by how many milliseconds a beat was late at most, the most memory in MB, and how many ran at once."""
    import psutil

    from execution.engine.supervisor import BEAT_SECONDS
    from execution.models import Execution, Worker
    from execution.states import EXECUTION, LEASED

    process = psutil.Process(worker.process.pid)
    beats, megabytes, most = [Worker.objects.get().beat_at], 0.0, 0
    while Execution.objects.filter(state__in=EXECUTION.live).exists():
        beat = Worker.objects.get().beat_at
        if beat != beats[-1]:
            beats.append(beat)
        family = [process, *process.children(recursive=True)]
        megabytes = max(megabytes, sum(each.memory_info().rss for each in family) / 1e6)
        most = max(most, Execution.objects.filter(state__in=LEASED).count())
        time.sleep(0.2)
    gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(beats)]
    return max(1000 * (gap - BEAT_SECONDS) for gap in gaps), megabytes, most
