"""Twenty trees with grandchildren that ignore SIGTERM and have sessions of their own: from the order to the proof that all are gone."""

from __future__ import annotations

import concurrent.futures
import os
import tempfile
import time
from pathlib import Path

from bench.figures import Figure

TREES = 20
GRACE = 0.5  # what the worker gives a CLI between SIGTERM and SIGKILL
STUBBORN = "(trap '' TERM; setsid sh -c \"trap '' TERM; echo born; while :; do sleep 1; done\" &) ; exec sleep 600"


def run() -> list[Figure]:
    """Start the trees, end all of them at once, and look for whatever carries their markers."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings.base")
    import django

    django.setup()
    from execution.shim import processes
    from execution.shim.handle import OwnShim
    from execution.shim.leftovers import MARKER

    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(TREES) as pool:
        shims = [OwnShim() for _ in range(TREES)]
        for shim in shims:
            shim.start(["/bin/sh", "-c", STUBBORN], environment={"PATH": "/usr/bin:/bin"}, cwd=Path(scratch))
            shim.take_stream().recv(100)
        began = time.monotonic()
        for shim in shims:
            shim.stop(grace=GRACE)
        proven = sum(pool.map(lambda shim: shim.wait_gone(30), shims))
        took = time.monotonic() - began
        left = sum(len(processes.marked(MARKER, shim.marker)) for shim in shims)
        for shim in shims:
            shim.close()
    note = f"{proven} of {TREES} proven gone, {left} processes left"
    return [Figure(f"Kill of {TREES} stubborn trees", took, "s", target=7.0, note=note)]
