"""Clocks that jump: the database's own, as after a suspended machine, and a worker's. What runs goes on, and only once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from execution import actions
from execution.models import Execution, Worker
from execution.states import ExecutionState
from fleet.platform.embedded import EmbeddedPostgres
from tests.execution.running import CeleryWorker, ended, running, until
from tests.factories import execution as made

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(LIBRARY is None, reason="needs Debian's libfaketime"),
]


class Jumping:
    """The wall clock of one process, which can be set while it runs; its monotonic clock goes on as always."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set("+0")

    def set(self, offset: str) -> None:
        self._file.write_text(offset)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture
def jumping(tmp_path: Path) -> Jumping:
    return Jumping(tmp_path / "time")


@pytest.fixture
def database(jumping: Jumping, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PostgreSQL with a clock that can jump: it starts with an empty environment, so this one is put into its command."""
    connection.close()
    variables = [f"{name}={value}" for name, value in jumping.environment.items()]
    command = postgres.command

    def jumpy(**options: bool) -> list[str]:
        words = command(**options)
        program = words.index("--") + 1
        return [*words[:program], "/usr/bin/env", *variables, *words[program:]]

    with monkeypatch.context() as during:
        during.setattr(postgres, "command", jumpy)
        postgres.restart()
    connection.close_pool()
    made.set_the_table()
    yield
    connection.close()
    postgres.restart()
    connection.close_pool()


def database_ahead() -> float:
    """Return by how many seconds the database's clock is ahead of ours."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        return float(cursor.fetchone()[0]) - time.time()


@pytest.mark.parametrize("offset", ["+3600", "-3600"])
def test_when_the_databases_clock_jumps_an_hour_the_turn_that_runs_goes_on_with_its_worker(
    database: None, jumping: Jumping, tmp_path: Path, offset: str
) -> None:
    worker = CeleryWorker(tmp_path / "var").start()
    try:
        execution = until(running, made.queued("mock:slow=12 mock:words=3"))
        actions.sweep()
        jumping.set(offset)
        assert abs(database_ahead() - float(offset)) < 60
        actions.sweep()  # before any beat
        row = until(ended, execution)
    finally:
        worker.stop()
    assert (row.state, row.attempt, row.answer) == (ExecutionState.SUCCEEDED, 1, "word1 word2 word3")
    assert Worker.objects.count() == 1


def test_after_such_a_jump_a_worker_that_dies_is_still_noticed(
    database: None, jumping: Jumping, tmp_path: Path
) -> None:
    first = CeleryWorker(tmp_path / "var").start()
    execution = until(running, made.queued("mock:hang"))
    jumping.set("+3600")
    first.kill()
    second = CeleryWorker(tmp_path / "var").start()
    try:
        row = until(ended, execution)
    finally:
        second.stop()
    assert row.state == ExecutionState.LOST


def test_a_workers_own_clock_decides_nothing(jumping: Jumping, tmp_path: Path) -> None:
    made.set_the_table()
    worker = CeleryWorker(tmp_path / "var", **jumping.environment).start()
    try:
        execution = until(running, made.queued("mock:slow=8 mock:words=3"))
        jumping.set("+86400")
        row = until(ended, execution)
        jumping.set("-86400")
        later = until(ended, made.queued("mock:words=3"))
    finally:
        worker.stop()
    assert (row.state, later.state) == (ExecutionState.SUCCEEDED, ExecutionState.SUCCEEDED)
    assert Execution.objects.filter(attempt=1).count() == 2
