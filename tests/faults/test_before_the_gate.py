"""SIGKILL from outside before the spend gate: nothing was spent, so the turn begins anew by itself, and its person gets one answer."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from budgets.models import Reservation
from execution.engine import attempt
from execution.engine.standby import Ready
from execution.models import Execution
from execution.ports import ProcessFacts
from execution.providers import cli, registry
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import queue
from fleet.kernel.models import JournalEntry
from tests.emulators import agents
from tests.emulators.model import ModelEmulator
from tests.execution import fake_cli
from tests.execution.running import CeleryWorker, Run, ended, eventually, run, table, until
from tests.factories import execution as made

__all__ = ["run", "table"]
pytestmark = pytest.mark.timeout(480)

VICTIMS = {"shim": "its shim was ended by SIGKILL", "cli": "its CLI was ended by SIGKILL"}
Strike = Callable[[ProcessFacts], None]


@pytest.fixture(params=VICTIMS)
def victim(request: pytest.FixtureRequest) -> str:
    """What is killed: the shim, or the CLI below it."""
    return request.param


@pytest.fixture
def strike(victim: str) -> Strike:
    """Kill it, as the kernel does when memory is short, or a person with the wrong number."""

    def struck(shim: ProcessFacts) -> None:
        process = psutil.Process(shim.pid)
        cli = eventually(lambda: _cli_below(process), "the CLI below its shim")
        (process if victim == "shim" else cli).kill()

    return struck


@pytest.fixture(params=["claude", "codex", "agent"])
def real_cli(request: pytest.FixtureRequest, model_emulator: ModelEmulator, settings) -> Iterator[str]:
    """A real CLI whose model is emulated; its name."""
    settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = "sk-ant-canary-not-a-key", model_emulator.url
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "sk-canary-not-a-key", f"{model_emulator.url}/v1"
    settings.FLEET_ACP_AGENTS = {"agent": agents.claude_agent(model_emulator.url)}
    settings.FLEET_ACP_SECRETS = {"AGENT_KEY": "sk-ant-canary-not-a-key"}
    settings.FLEET_PROVIDERS = {
        **settings.FLEET_PROVIDERS,
        "agent": "execution.providers.acp.provider.AcpProvider:agent",
    }
    registry.kept.cache_clear()  # an agent is made for the address of its model
    registry.get(request.param).warm_up()
    yield request.param
    registry.kept.cache_clear()


def after_the_first(step: Callable[..., Any], then: Callable[..., None]) -> Callable[..., Any]:
    """Do the step as ever, and something more after the first one."""
    left = [then]

    def stepped(*args: Any, **kwargs: Any) -> Any:
        done = step(*args, **kwargs)
        if left:
            left.pop()(*args, done)
        return done

    return stepped


def check_begins_anew(run: Run, execution: Execution, why: str, model: ModelEmulator) -> None:
    """The first attempt is given back for free, the second one answers, and the model was asked once."""
    row = run(execution)
    assert (row.state, row.attempt, row.epoch, row.sentence) == (ExecutionState.QUEUED, 1, 1, "")
    assert Reservation.objects.get(pk=row.reservation_id).state == "held"
    assert JournalEntry.objects.get(event="execution.execution.requeued").details["why"] == why
    assert model.requests == []
    row = run(row)
    assert (row.state, row.attempt, row.sentence) == (ExecutionState.SUCCEEDED, 2, "")
    assert len([request for request in model.requests if "Hello" in request.said]) == 1


@pytest.mark.realcli
class TestARealCli:
    def test_killed_while_it_starts(
        self, run: Run, real_cli: str, strike: Strike, victim: str, monkeypatch, model_emulator: ModelEmulator
    ) -> None:
        spawn = after_the_first(cli.CliProcess._spawn, lambda _run, _plan, shim: strike(shim))
        monkeypatch.setattr(cli.CliProcess, "_spawn", spawn)
        check_begins_anew(
            run,
            made.queued("Hello", identity=made.BotFactory(warm=False), provider=real_cli),
            VICTIMS[victim],
            model_emulator,
        )

    def test_killed_while_it_waits_for_its_prompt(
        self, run: Run, real_cli: str, strike: Strike, victim: str, monkeypatch, model_emulator: ModelEmulator
    ) -> None:
        def strike_at_the_gate(ready: Ready, _: None) -> None:
            strike(ready.process.result())
            eventually(lambda: not ready.run.is_there(), "its end to be noticed")

        brought = after_the_first(attempt.bring_to_the_gate, strike_at_the_gate)
        monkeypatch.setattr(attempt, "bring_to_the_gate", brought)
        check_begins_anew(
            run,
            made.queued("Hello", identity=made.BotFactory(warm=False), provider=real_cli),
            VICTIMS[victim],
            model_emulator,
        )


class TestAnyCli:
    """With one that is written for the case."""

    @pytest.fixture
    def life(self, tmp_path: Path, settings) -> Callable[[str], None]:
        """Let the CLI live like this."""
        settings.ANTHROPIC_API_KEY = "sk-ant-canary-not-a-key"

        def lives(body: str) -> None:
            settings.FLEET_CLAUDE_CLI = str(fake_cli.write(tmp_path / "claude", body))
            registry.get("claude").warm_up()

        return lives

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
    def test_that_breaks_by_a_signal_begins_anew(self, run: Run, life, number: signal.Signals) -> None:
        life(f"os.kill(os.getpid(), {number:d}); time.sleep(600)")
        row = run(made.queued(provider="claude"))
        assert (row.state, row.epoch) == (ExecutionState.QUEUED, 1)

    def test_that_breaks_every_time_fails_in_the_end_and_nothing_is_spent(self, run: Run, life) -> None:
        life("os.kill(os.getpid(), signal.SIGKILL); time.sleep(600)")
        row = made.queued(provider="claude")
        for _ in range(5):
            row = run(row)
        assert (row.state, row.outcome, row.attempt) == (ExecutionState.FAILED, OutcomeClass.ERROR, 5)
        assert "5 attempts (its CLI was ended by SIGKILL). Nothing was spent." in row.sentence
        assert row.spend_stage == SpendStage.NONE
        assert Reservation.objects.get(pk=row.reservation_id).state == "released"

    @pytest.mark.parametrize("status", [0, 1, 127])
    def test_that_leaves_by_itself_does_not_circle(self, run: Run, life, status: int) -> None:
        life(f"sys.exit({status})")
        row = run(made.queued(provider="claude"))
        assert (row.state, row.attempt, row.spend_stage) == (ExecutionState.FAILED, 1, SpendStage.NONE)

    def test_that_we_kill_because_it_is_never_ready_does_not_circle(self, run: Run, life, monkeypatch) -> None:
        monkeypatch.setattr(cli, "HANDSHAKE_SECONDS", 1.0)
        life("time.sleep(600)")
        row = run(made.queued(provider="claude"))
        assert (row.state, row.attempt) == (ExecutionState.FAILED, 1)
        assert "not ready" in row.sentence

    def test_that_is_struck_after_the_gate_is_not_repeated(self, run: Run, life) -> None:
        life("ready(); prompt(); os.kill(os.getpid(), signal.SIGKILL); time.sleep(600)")
        row = run(made.queued(provider="claude"))
        assert (row.state, row.attempt, row.spend_stage) == (ExecutionState.FAILED, 1, SpendStage.UNKNOWN)


@pytest.mark.django_db(transaction=True)
class TestAWorker:
    @pytest.fixture(autouse=True)
    def laid(self) -> None:
        queue._silent_until = 0.0
        made.set_the_table()

    @pytest.fixture
    def worker(self, tmp_path: Path) -> Iterator[CeleryWorker]:
        """A Celery worker whose CLI hangs at its first start, and answers at the second."""
        once = "if not os.path.exists('seen'):\n open('seen', 'w').close(); time.sleep(600)\n"
        path = fake_cli.write(tmp_path / "claude", f"{once}ready(); prompt(); text('Hi.'); result('Hi.'); hear()")
        worker = CeleryWorker(
            tmp_path / "var", ANTHROPIC_API_KEY="sk-ant-canary-not-a-key", FLEET_CLAUDE_CLI=str(path)
        ).start()
        yield worker
        worker.stop()

    def test_goes_on_by_itself(self, worker: CeleryWorker, tmp_path: Path, victim: str) -> None:
        execution = made.queued("Hello", provider="claude")
        eventually(lambda: list(tmp_path.glob("var/workspaces/*/seen")), "the CLI to hang")
        os.kill(eventually(lambda: _of(worker, victim), f"the {victim}"), signal.SIGKILL)
        row = until(ended, execution)
        assert (row.state, row.answer, row.attempt, row.epoch) == (ExecutionState.SUCCEEDED, "Hi.", 2, 1)


def _cli_below(shim: psutil.Process) -> psutil.Process | None:
    """Return the CLI itself, which stands below the walls that were put around it."""
    with contextlib.suppress(psutil.NoSuchProcess):  # one has ended since they were listed
        below = shim.children(recursive=True)
        return next((process for process in below if process.name() not in ("bwrap", "python", "python3")), None)
    return None


def _of(worker: CeleryWorker, victim: str) -> int | None:
    """Return the number of the worker's shim that has a CLI, or of that CLI."""
    for shim in psutil.Process(worker.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since they were listed
            if below := shim.children(recursive=True):
                return shim.pid if victim == "shim" else below[-1].pid
    return None
