"""Real Celery workers that are killed, stopped and cut off from Redis, with the real CLI and an emulated model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from django.conf import settings as django_settings

from execution import actions
from execution.models import Execution, Worker
from execution.shim import processes
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import queue
from fleet.platform.embedded import EmbeddedValkey
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.states import KillMode, KillScope
from tests.emulators.model import ModelEmulator
from tests.execution import fake_cli
from tests.execution.running import CeleryWorker, ended, eventually, running, until
from tests.factories import execution as made
from tests.factories.execution import BY

pytestmark = [pytest.mark.timeout(600), pytest.mark.django_db(transaction=True)]

# A grandchild no signal to a group reaches: it ignores SIGTERM and has a session of its own.
STUBBORN = "(trap '' TERM; setsid sh -c \"trap '' TERM; echo born > born; while :; do sleep 1; done\" &) ; sleep 600"


@pytest.fixture(autouse=True)
def table() -> None:
    """Prices, budgets and policy."""
    queue._silent_until = 0.0
    made.set_the_table()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[CeleryWorker]:
    """A Celery worker that answers with the mock."""
    worker = CeleryWorker(tmp_path / "var").start()
    yield worker
    worker.stop()


@pytest.fixture
def claude_worker(tmp_path: Path, model_emulator: ModelEmulator) -> Iterator[CeleryWorker]:
    """A Celery worker that answers with the real CLI, and for which nobody else takes over."""
    credential = {"ANTHROPIC_API_KEY": "sk-ant-canary-not-a-key", "ANTHROPIC_BASE_URL": model_emulator.url}
    worker = CeleryWorker(tmp_path / "var", **credential, FLEET_DETACHED_SECONDS="1").start()
    yield worker
    worker.stop()


def tree_of(worker: CeleryWorker, *, at_least: int) -> list[psutil.Process]:
    """Wait until the worker has so many descendants, the spare shim included, and return them."""
    return eventually(lambda: found if len(found := worker.offspring()) >= at_least else None, f"{at_least} processes")


def check_gone(tree: list[psutil.Process]) -> None:
    eventually(lambda: not [process for process in tree if process.is_running()], "every process to be gone")


def sweep_until(fits, execution: Execution) -> Execution:
    """Sweep as the runner does, until the row fits."""

    def swept(row: Execution) -> bool:
        actions.sweep()
        return fits(row)

    return until(swept, execution)


class TestGoodPath:
    def test_a_hint_brings_a_message_to_a_worker(self, worker: CeleryWorker) -> None:
        assert until(ended, made.queued("Hello")).state == ExecutionState.SUCCEEDED

    def test_old_and_doubled_hints_do_no_harm(self, worker: CeleryWorker) -> None:
        execution = made.queued("mock:words=3")
        for epoch in (0, 0, 0, 5):
            queue.publish("execution.run", {"execution_id": execution.pk, "epoch": epoch})
        queue.publish("execution.run", {"execution_id": 4711, "epoch": 0})
        assert until(ended, execution).state == ExecutionState.SUCCEEDED
        row = until(ended, made.queued("mock:words=3"))
        assert (row.attempt, row.state) == (1, ExecutionState.SUCCEEDED)


@pytest.mark.realcli
class TestKilledWorker:
    def test_after_the_release_nothing_lives_on_and_nothing_is_repeated(
        self, claude_worker: CeleryWorker, model_emulator: ModelEmulator, tmp_path: Path
    ) -> None:
        model_emulator.call_tool("go", "Bash", {"command": STUBBORN}, then="never")
        execution = made.queued("go", identity=made.BotFactory(tools=["Bash"]), provider="claude")
        until(running, execution)
        eventually(lambda: list(tmp_path.glob("var/workspaces/*/born")), "the grandchild")
        tree = tree_of(claude_worker, at_least=5)
        claude_worker.kill()
        check_gone(tree)
        row = sweep_until(ended, execution)
        assert (row.state, row.outcome, row.spend_stage) == (ExecutionState.LOST, OutcomeClass.LOST, SpendStage.UNKNOWN)
        assert row.process_gone_at is not None
        assert len([request for request in model_emulator.requests if request.said == "go"]) == 1

    def test_before_the_release_it_is_queued_again_and_answered_once(
        self, tmp_path: Path, model_emulator: ModelEmulator
    ) -> None:
        slow = fake_cli.write(tmp_path / "slow", "time.sleep(600)")
        credential = {"ANTHROPIC_API_KEY": "sk-ant-canary-not-a-key", "ANTHROPIC_BASE_URL": model_emulator.url}
        first = CeleryWorker(tmp_path / "var", **credential, FLEET_CLAUDE_CLI=str(slow)).start()
        execution = made.queued("Hello", provider="claude")
        until(lambda row: row.state == ExecutionState.STARTING, execution)
        tree = tree_of(first, at_least=3)
        first.kill()
        check_gone(tree)
        second = CeleryWorker(tmp_path / "var", **credential).start()
        try:
            row = until(ended, execution)
        finally:
            second.stop()
        assert (row.state, row.attempt, row.epoch) == (ExecutionState.SUCCEEDED, 2, 1)
        assert [request.said for request in model_emulator.requests] == ["Hello"]

    def test_a_shim_that_is_killed_takes_its_tree_along(
        self, claude_worker: CeleryWorker, model_emulator: ModelEmulator, tmp_path: Path
    ) -> None:
        model_emulator.call_tool("go", "Bash", {"command": STUBBORN}, then="never")
        execution = made.queued("go", identity=made.BotFactory(tools=["Bash"]), provider="claude")
        row = until(running, execution)
        eventually(lambda: list(tmp_path.glob("var/workspaces/*/born")), "the grandchild")
        tree = psutil.Process(row.pid).children(recursive=True)
        os.kill(row.pid, signal.SIGKILL)
        check_gone(tree)
        row = until(ended, execution)
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.ERROR)
        assert row.process_gone_at is not None

    def test_a_stop_order_kills_the_tree_and_proves_it(
        self, claude_worker: CeleryWorker, model_emulator: ModelEmulator, tmp_path: Path
    ) -> None:
        model_emulator.call_tool("go", "Bash", {"command": STUBBORN}, then="never")
        execution = made.queued("go", identity=made.BotFactory(tools=["Bash"]), provider="claude")
        row = until(running, execution)
        eventually(lambda: list(tmp_path.glob("var/workspaces/*/born")), "the grandchild")
        tree = [psutil.Process(row.pid), *psutil.Process(row.pid).children(recursive=True)]
        order = governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="fire drill", by=BY)
        row = until(ended, execution)
        assert (row.state, row.outcome) == (ExecutionState.STOPPED, OutcomeClass.GOVERNANCE)
        assert not [process for process in tree if process.is_running()]
        (line,) = governance_queries.receipt(order).lines
        assert (line.killed, "all its descendants are gone" in line.sentence) == (True, True)


class TestStoppedWorker:
    def test_sigterm_lets_a_turn_finish_and_says_goodbye(self, worker: CeleryWorker) -> None:
        execution = made.queued("mock:slow=2")
        until(running, execution)
        worker.stop()
        assert worker.process.returncode == 0
        assert Execution.objects.get(pk=execution.pk).state == ExecutionState.SUCCEEDED
        assert Worker.objects.get().stopped_at is not None

    def test_sigterm_ends_what_takes_too_long(self, tmp_path: Path) -> None:
        worker = CeleryWorker(tmp_path / "var", FLEET_WORKER_GRACE_SECONDS="0.5").start()
        execution = made.queued("mock:hang")
        until(running, execution)
        worker.stop()
        row = Execution.objects.get(pk=execution.pk)
        assert (row.state, "restarted" in row.sentence) == (ExecutionState.STOPPED, True)


class TestWithoutRedis:
    def test_work_is_found_after_everything_in_redis_was_lost(self, worker: CeleryWorker) -> None:
        until(ended, made.queued("mock:words=3"))
        redis.Redis.from_url(django_settings.REDIS_URL).flushall()
        assert until(ended, made.queued("mock:words=3")).state == ExecutionState.SUCCEEDED

    def test_work_is_found_while_redis_is_stopped_and_after_it_is_back(
        self, worker: CeleryWorker, valkey: EmbeddedValkey
    ) -> None:
        valkey.stop()
        try:
            during = made.queued("mock:words=3")
            assert until(ended, during).state == ExecutionState.SUCCEEDED
        finally:
            valkey.start()
        queue._silent_until = 0.0
        assert until(ended, made.queued("mock:words=3")).state == ExecutionState.SUCCEEDED

    def test_work_is_found_while_redis_is_frozen(self, worker: CeleryWorker, valkey: EmbeddedValkey) -> None:
        valkey.pause()
        try:
            assert until(ended, made.queued("mock:words=3")).state == ExecutionState.SUCCEEDED
        finally:
            valkey.resume()


def test_a_stopped_turn_is_stopped_by_whoever_runs_it(worker: CeleryWorker) -> None:
    execution = made.queued("mock:hang")
    until(running, execution)
    actions.request_stop(execution_id=execution.pk, reason="enough", by=BY)
    assert until(ended, execution).state == ExecutionState.STOPPED


def test_a_worker_is_seen_as_dead_by_its_start_time_and_not_by_its_number(worker: CeleryWorker) -> None:
    row = Worker.objects.get()
    assert processes.is_alive(row.pid, row.pid_started_at)
    assert not processes.is_alive(row.pid, row.pid_started_at - 1)
