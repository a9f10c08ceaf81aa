"""A CLI that misbehaves: every turn ends, with a sentence a person understands, and nothing of the CLI is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from budgets.models import Reservation
from execution.models import Execution
from execution.providers import cli, registry
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import masking
from tests.execution import fake_cli
from tests.execution.running import Run, run, table
from tests.factories import execution as made

__all__ = ["run", "table"]
pytestmark = pytest.mark.timeout(480)

Turn = Callable[..., Execution]


@pytest.fixture
def turn(run: Run, tmp_path: Path, settings, monkeypatch) -> Turn:
    """Run one turn with a CLI whose life is the given body."""
    settings.ANTHROPIC_API_KEY = "sk-ant-canary-not-a-key"
    masking.register(settings.ANTHROPIC_API_KEY)
    monkeypatch.setattr(cli, "EXIT_SECONDS", 1.0)

    def turned(body: str = "", *, path: Path | None = None, **script: object) -> Execution:
        path = path or fake_cli.write(tmp_path / "claude", body, **script)
        settings.FLEET_CLAUDE_CLI = str(path)
        registry.get("claude").warm_up()
        return run(made.queued(provider="claude"))

    return turned


def check_failed(row: Execution, *words: str) -> None:
    assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.ERROR)
    for word in words:
        assert word in row.sentence
    assert "canary" not in row.sentence + str(row.details)
    assert row.process_gone_at is not None


def check_free(row: Execution) -> None:
    assert row.spend_stage == SpendStage.NONE
    assert Reservation.objects.get(pk=row.reservation_id).state == "released"


class TestBeforeThePrompt:
    """Nothing was spent yet, so nothing is charged."""

    def test_exits_at_once(self, turn: Turn) -> None:
        row = turn("print('sk-ant-canary-not-a-key is not welcome', file=sys.stderr); sys.exit(1)")
        check_failed(row, "ended before it was ready", "try again")
        check_free(row)
        assert row.details["exit_status"] == 1
        assert "[secret] is not welcome" in row.details["stderr"]

    def test_hangs(self, turn: Turn, monkeypatch) -> None:
        monkeypatch.setattr(cli, "HANDSHAKE_SECONDS", 1.0)
        row = turn("time.sleep(600)")
        check_failed(row, "not ready")
        check_free(row)

    def test_prints_garbage(self, turn: Turn) -> None:
        row = turn("while True: print('What a lovely day it is.')")
        check_failed(row, "not its protocol")
        check_free(row)

    def test_is_too_old(self, turn: Turn) -> None:
        row = turn("ready(); prompt(); result('never')", version="2.1.247")
        check_failed(row, "older than 2.1.248")
        check_free(row)

    def test_is_no_program(self, turn: Turn, tmp_path: Path) -> None:
        path = tmp_path / "claude"
        path.write_text("not a program")
        check_failed(turn(path=path), "did not say its version", "--version")


class TestAfterThePrompt:
    def test_exits(self, turn: Turn) -> None:
        row = turn("ready(); prompt(); text('Half an ans'); sys.exit(1)")
        check_failed(row, "ended in the middle of the turn")
        assert (row.answer, row.spend_stage) == ("Half an ans", SpendStage.UNKNOWN)  # it never said what that cost

    def test_hangs(self, turn: Turn, settings) -> None:
        settings.FLEET_STALL_SECONDS = 0.5
        row = turn("ready(); prompt(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.TIMEOUT)
        assert "sign of life" in row.sentence
        assert row.process_gone_at is not None

    def test_prints_garbage(self, turn: Turn) -> None:
        check_failed(turn("ready(); prompt()\nwhile True: print('What a lovely day it is.')"), "not its protocol")

    def test_prints_broken_json(self, turn: Turn) -> None:
        check_failed(turn("""ready(); prompt(); print('{"type": "assis', flush=True); time.sleep(600)"""), "no JSON")

    def test_prints_messages_of_unknown_shape(self, turn: Turn) -> None:
        row = turn("ready(); prompt(); say({'type': 'result'}); time.sleep(600)")
        check_failed(row, "ended in the middle")

    def test_ignores_messages_of_a_kind_to_come(self, turn: Turn) -> None:
        row = turn("ready(); prompt(); say({'type': 'from_the_future'}); text('Hi'); result('Hi')")
        assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Hi")

    def test_prints_fifty_megabytes_in_one_line(self, turn: Turn) -> None:
        row = turn("ready(); prompt(); text('x' * 50 * 1024**2); result('never')")
        check_failed(row, "single line of more than 16 MB")

    def test_never_stops_talking(self, turn: Turn) -> None:
        row = turn("ready(); prompt()\nwhile True: text('bla ' * 1000)")
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.LIMIT)
        assert "1 MB" in row.sentence

    def test_says_what_no_database_can_store(self, turn: Turn) -> None:
        row = turn(r"ready(); prompt(); text('a\x00b\ud800c'); result('')")
        assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "ab?c")

    def test_does_not_leave_after_its_answer(self, turn: Turn) -> None:
        row = turn(
            "ready(); prompt(); signal.signal(signal.SIGTERM, signal.SIG_IGN); result('Done.'); hear()", linger=600
        )
        assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Done.")
        assert row.process_gone_at is not None

    def test_leaves_a_child_behind(self, turn: Turn) -> None:
        row = turn("ready(); prompt()\nif os.fork() == 0:\n os.setsid(); time.sleep(600)\nresult('Done.'); hear()")
        assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Done.")
        assert row.process_gone_at is not None
