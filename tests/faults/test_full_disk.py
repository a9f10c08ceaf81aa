"""A disk that is full where a bot works or lives: a clear end, nothing lost, and the next turn is answered once there is room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from budgets.models import Reservation
from execution.models import Execution
from execution.states import ExecutionState, OutcomeClass, SpendStage
from tests.emulators.model import ModelEmulator
from tests.execution.running import CeleryWorker, ended, until
from tests.factories import execution as made

pytestmark = [pytest.mark.timeout(600), pytest.mark.django_db(transaction=True), pytest.mark.realcli]
MEGABYTES = 6

Start = Callable[..., CeleryWorker]


@pytest.fixture
def start(tmp_path: Path, model_emulator: ModelEmulator) -> Iterator[Start]:
    """Start a worker for which one directory below var/ is a disk of its own, of six megabytes."""
    made.set_the_table()
    credential = {"ANTHROPIC_API_KEY": "sk-ant-canary-not-a-key", "ANTHROPIC_BASE_URL": model_emulator.url}
    started: list[CeleryWorker] = []

    def begin(directory: str, **environment: str) -> CeleryWorker:
        disk = tmp_path / "var" / directory
        disk.mkdir(parents=True)
        mount = f'mount -t tmpfs -o size={MEGABYTES}m,mode=700 tmpfs "$0" && exec "$@"'
        alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        worker = CeleryWorker(
            tmp_path / "var", within=[*alone, "sh", "-c", mount, str(disk)], **credential, **environment
        )
        worker.start()
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        worker.stop()


def on_the_disk_of(worker: CeleryWorker, path: Path) -> Path:
    """Return the path as the worker sees it."""
    return Path(f"/proc/{worker.process.pid}/root{path}")


def fill(directory: Path) -> Path:
    """Write until there is no room; return what has to go for room to be there again."""
    ballast = directory / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    return ballast


def turn(text: str, bot) -> Execution:
    return until(ended, made.queued(text, identity=bot, provider="claude"))


def test_a_bot_that_fills_its_disk_is_told_so_and_goes_on(start: Start, model_emulator: ModelEmulator) -> None:
    start("workspaces")
    model_emulator.call_tool("go", "Bash", {"command": "dd if=/dev/zero of=big bs=1M count=50"}, then="It is full.")
    bot = made.BotFactory(tools=["Bash"])
    row = turn("go", bot)
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "It is full.")
    (result,) = model_emulator.requests[-1].tool_results.values()
    assert "No space left on device" in str(result)
    assert turn("and now", bot).state == ExecutionState.SUCCEEDED


def test_a_bot_whose_texts_cannot_be_written_costs_nothing_and_says_why(
    start: Start, tmp_path: Path, model_emulator: ModelEmulator
) -> None:
    worker = start("workspaces")
    ballast = fill(on_the_disk_of(worker, tmp_path / "var/workspaces"))
    bot = made.BotFactory()
    row = turn("Hello", bot)
    assert (row.state, row.outcome, row.spend_stage) == (ExecutionState.FAILED, OutcomeClass.ERROR, SpendStage.NONE)
    assert "disk is full" in row.sentence
    assert Reservation.objects.get(pk=row.reservation_id).state == "released"
    assert model_emulator.requests == []
    ballast.unlink()
    assert turn("Hello", bot).state == ExecutionState.SUCCEEDED


def test_a_home_without_room_for_a_transcript_still_answers(
    start: Start, tmp_path: Path, model_emulator: ModelEmulator
) -> None:
    worker = start("homes", FLEET_WARM_PROCESSES="0")
    bot = made.BotFactory()
    assert turn("Hello", bot).state == ExecutionState.SUCCEEDED
    ballast = fill(on_the_disk_of(worker, tmp_path / "var/homes"))
    row = turn("Hello again", bot)
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "You said: Hello again")
    ballast.unlink()
    assert turn("And again", bot).state == ExecutionState.SUCCEEDED


def test_without_room_for_what_another_worker_would_need_a_turn_is_answered_all_the_same(
    start: Start, tmp_path: Path
) -> None:
    worker = start("run", FLEET_WARM_PROCESSES="0")
    bot = made.BotFactory()
    ballast = fill(on_the_disk_of(worker, tmp_path / "var/run"))
    for text in ("Hello", "Hello again"):
        row = turn(text, bot)
        assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, f"You said: {text}"), row.sentence
    ballast.unlink()
    assert turn("And again", bot).state == ExecutionState.SUCCEEDED
