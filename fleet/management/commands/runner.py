"""`manage.py runner`: the periodic work, in one process. More than one may run."""

from __future__ import annotations

import signal
import threading
from typing import Any

import structlog

from fleet.kernel.commands import ServiceCommand
from fleet.runner import duties, run

log = structlog.get_logger(__name__)


class Command(ServiceCommand):
    """Runs until it is told to stop."""

    help = "Sweep what was left lying, settle reservations and seal the journal, over and over."

    def handle(self, *args: Any, **options: Any) -> None:
        """Work until SIGTERM or SIGINT."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        work = duties()
        log.info("runner.started", duties=[duty.name for duty in work])
        run(work, stop)
        log.info("runner.stopped")
