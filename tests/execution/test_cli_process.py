"""One process of a CLI, whichever protocol it speaks: how it begins, and what is left of it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from execution.ports import NotPrepared, ProcessFacts
from execution.providers.cli import LOOP, CliProcess
from execution.sandbox import scratch
from execution.shim import taking
from execution.shim.handle import Nursery, OwnShim
from execution.shim.keys import place_of_doors
from execution.shim.pipes import Pipes
from execution.states import OutcomeClass
from fleet.kernel import loops
from tests.execution.running import eventually


@dataclass
class Plan:
    """A script to run."""

    script: str
    scratch: Path
    shell: str = "/bin/sh"
    cwd: Path = Path("/")
    network: str = ""
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/bin:/bin"})
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def argv(self) -> tuple[str, ...]:
        return self.shell, "-c", self.script


class Script(CliProcess):
    """A CLI without a protocol."""

    def __init__(self) -> None:
        self._pipes = Pipes()
        super().__init__(self._pipes, nursery=Nursery(), session_id="s-1")
        self.stopped_talking = threading.Event()

    async def _live(self) -> None:
        await self._pipes.connect()
        self._ready.set_result(None)
        async with asyncio.timeout(30):
            await self._pipes._line()
        self.stopped_talking.set()

    def start(self, plan: Plan) -> ProcessFacts:
        facts = self._spawn(plan)
        self._wait_ready()
        return facts


@pytest.fixture
def process() -> Iterator[Script]:
    process = Script()
    yield process
    process.let_go(politely=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "scratch"
    place.mkdir()
    (place / "mcp.json").write_text("a token")
    return place


def test_one_that_cannot_be_started_says_why(process: Script, place: Path) -> None:
    with pytest.raises(NotPrepared) as refused:
        process.start(Plan("", place, shell="/no/such/cli"))
    assert "It could not be started: No such file or directory." in refused.value.finished.sentence


def test_one_that_is_killed_on_its_way_to_its_shim_leaves_nothing(process: Script, place: Path, monkeypatch) -> None:
    """The kill comes after it has got a shim, and before the shim is told what to run."""
    start, proven = OwnShim.start, []

    def killed_before(shim: OwnShim, *words: object, **more: object) -> object:
        proven.append(process.kill())
        return start(shim, *words, **more)

    monkeypatch.setattr(OwnShim, "start", killed_before)
    with pytest.raises(NotPrepared) as refused:
        process.start(Plan("exec sleep 60", place))
    process.let_go(politely=False)
    assert (proven, refused.value.finished.outcome, place.exists()) == ([True], OutcomeClass.STOPPED, False)


def test_one_whose_shim_was_killed_leaves_nothing(process: Script, place: Path) -> None:
    process.start(Plan("exec sleep 60", place))
    os.kill(process._shim.pid, 9)
    process.let_go(politely=False)
    assert not place.exists()


def test_how_it_ended_is_known_before_its_shim_is_gone(process: Script, place: Path) -> None:
    """A shim that keeps a turn for another worker stays until it is told otherwise; an explanation does not wait for that."""
    process.start(Plan("read go; exit 3", place))
    loops.submit(process._pipes.open_gate(run="7", epoch=1, memo=b"{}"), loop=LOOP).result(60)
    loops.submit(process._pipes.write("go\n"), loop=LOOP).result(60)
    assert process.stopped_talking.wait(60)
    assert process._shim.hears_gone(60)
    assert (process._shim.exit_status, process._shim.alive) == (3, True)


def test_a_worker_that_leaves_at_the_gate_lets_the_shim_know_of_the_turn(
    process: Script, place: Path, monkeypatch
) -> None:
    waits, asked = process._pipes.gate_is_told.wait, threading.Event()
    monkeypatch.setattr(process._pipes.gate_is_told, "wait", lambda seconds: asked.set() or waits(20))
    facts = process.start(Plan("exec sleep 60", place))
    eventually((place_of_doors() / facts.marker).exists, "its shim to have a door")
    leaving = threading.Thread(target=process.leave)
    leaving.start()
    assert asked.wait(60)
    loops.submit(process._pipes.open_gate(run="7", epoch=1, memo=b"memo"), loop=LOOP).result(60)
    leaving.join(60)
    inherited = taking.take(facts, run="7", epoch=2)
    assert inherited.memo == b"memo"
    inherited.shim.stop(grace=0)
    assert inherited.shim.wait_gone(60)


def test_a_launch_that_fails_leaves_nothing() -> None:
    with pytest.raises(OSError, match="full"), scratch() as made:
        (made / "mcp.json").write_text("a token")
        raise OSError("full")
    assert not made.exists()
