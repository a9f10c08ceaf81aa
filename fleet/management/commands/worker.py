"""`manage.py worker`: run turns, in one process. More than one may run, on one host or several."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from django.conf import settings

from fleet.celery import app
from fleet.kernel.commands import ServiceCommand

# Of Celery's threads: how many hints are looked at together. How many turns run together is FLEET_WORKER_SLOTS (docs/adr/0009).
HINTS_AT_ONCE = 32


class Command(ServiceCommand):
    """Runs until it is told to stop; a turn that is under way then is left to the next worker."""

    help = "Run the turns of bots: start their CLIs, supervise them and account for them, until it is told to end."

    def handle(self, *args: Any, **options: Any) -> None:
        """Work until SIGTERM or SIGINT."""
        # Django's checks would load every page; `make check` and `prepare` run them.
        os.environ["CELERY_SKIP_CHECKS"] = "true"
        worker = app.Worker(
            pool="threads",
            concurrency=HINTS_AT_ONCE,
            queues=[settings.CELERY_TASK_DEFAULT_QUEUE],
            loglevel=logging.getLogger().level,  # FLEET_LOG_LEVEL; by itself Celery would take its own
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        worker.start()
        sys.exit(worker.exitcode)
