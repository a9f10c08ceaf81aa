"""Fixtures and short ways for tests that let executions run: in the test's own thread, or in a real Celery worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings as django_settings
from django.db import connection

from execution.engine import Supervisor
from execution.engine.ticker import Ticker
from execution.models import Execution, Worker
from execution.states import ExecutionState
from tests.factories import execution as made

ROOT = Path(__file__).parents[2]
Run = Callable[[Execution], Execution]


@pytest.fixture
def table(db: None, settings: Any, tmp_path: Path) -> None:
    """Every execution needs a budget and a policy, and directories of its own."""
    settings.FLEET_WORKSPACES = tmp_path / "workspaces"
    settings.FLEET_HOMES = tmp_path / "homes"
    made.set_the_table()


@pytest.fixture
def run(table: None) -> Iterator[Run]:
    """Run an execution to its end, here and now, and return its row. No process stays longer than the test."""
    supervisor = Supervisor(slots=4)
    supervisor._register()
    weighing = Ticker("weigh", supervisor._weigh, seconds=0.5)  # the one clock that an execution here cannot do without
    weighing.start()

    def work(execution: Execution) -> Execution:
        supervisor.work(execution.pk, execution.epoch)
        return Execution.objects.get(pk=execution.pk)

    yield work
    weighing.stop()
    supervisor._standby.close()
    assert supervisor._standby.wait_ended(20)


@pytest.fixture
def worker(transactional_db: None) -> Iterator[Supervisor]:
    """A whole worker with all its clocks, in threads of this process."""
    worker = Supervisor(slots=4)
    worker.start()
    yield worker
    worker.stop(grace=0)
    connection.close()


def until(fits: Callable[[Execution], bool], execution: Execution, seconds: float = 120) -> Execution:
    """Wait until the execution's row fits, and return it."""
    deadline = time.monotonic() + seconds
    while not fits(row := Execution.objects.get(pk=execution.pk)):
        seen = f"still {row.state} after {seconds} s (attempt {row.attempt}, epoch {row.epoch}, owner {row.owner_id})"
        assert time.monotonic() < deadline, f"{seen} {row.sentence}"
        time.sleep(0.02)
    return row


def eventually(fits: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := fits()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def running(row: Execution) -> bool:
    """It has opened its gate and has not ended."""
    return row.state == ExecutionState.RUNNING


def ended(row: Execution) -> bool:
    """It has ended, however."""
    return row.ended_at is not None


class CeleryWorker:
    """A real Celery worker process on the test's own database and Valkey. `within` is put before its command."""

    def __init__(self, var: Path, *, within: Sequence[str] = (), **environment: str) -> None:
        self._within = within
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("FLEET_", "ANTHROPIC_", "CLAUDE", "DJANGO_SETTINGS"))
            },
            "DATABASE_URL": database_url(),
            "FLEET_VAR": str(var),
            "FLEET_SECRET_KEY": django_settings.SECRET_KEY,
            "FLEET_LOG_LEVEL": "INFO",
            "FLEET_SANDBOX_READABLE": f"{sys.prefix},{sys.base_prefix}",  # the CLIs that misbehave are written in Python
            **environment,
        }
        self.log = var / "worker.log"
        var.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes]

    def start(self) -> CeleryWorker:
        """Start it and wait until it has registered."""
        known = set(Worker.objects.values_list("pk", flat=True))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._within, sys.executable, "manage.py", "worker"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: self._registered(known), "the worker to register")
        return self

    def _registered(self, known: set[Any]) -> bool:
        assert self.process.poll() is None, f"the worker ended:\n{self.log.read_text()[-4000:]}"
        return Worker.objects.exclude(pk__in=known).exists()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        """End it in order, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def offspring(self) -> list[psutil.Process]:
        """Return what it has started, directly and not."""
        return psutil.Process(self.process.pid).children(recursive=True)


def database_url() -> str:
    """Return the URL of this test's database, for another process."""
    given = os.environ["DATABASE_URL"]
    name = connection.settings_dict["NAME"]
    head, separator, query = given.partition("?")
    return head.rpartition("/")[0] + f"/{name}" + separator + query
