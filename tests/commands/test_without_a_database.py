"""Commands where PostgreSQL does not answer: one sentence with the next step, the kill switch first of all."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.db import OperationalError

from execution.conformance.running import Result
from fleet.kernel import database
from fleet.kernel.commands import FleetCommand
from fleet.management.commands import say
from fleet.permissions import COMMANDS
from tests.architecture.source import ROOT

NOWHERE = "postgresql://fleet@127.0.0.1:1/fleet"


def test_every_command_of_ours_tells_it_in_a_sentence() -> None:
    others = [name for name in COMMANDS if not isinstance(load_command_class(get_commands()[name], name), FleetCommand)]

    assert others == []


@pytest.mark.parametrize("kind", database.AWAY)
def test_whatever_is_raised_then_becomes_that_sentence(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise kind("the connection is lost")

    monkeypatch.setattr("governance.actions.stop", away)
    with pytest.raises(CommandError, match=r"cannot reach its database.*make run.*Try again"):
        call_command("stop", "--reason", "drill")


def test_the_kill_switch_says_what_to_do_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "stop", "--reason", "drill"],
        env={**os.environ, "DATABASE_URL": NOWHERE},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert "make run" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_say_names_the_same_next_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(say, "operator", away)
    with pytest.raises(SystemExit) as left:
        call_command("say", "ada", "Hello")
    assert left.value.code == say.Exit.REFUSED
    assert "make run" in capsys.readouterr().err


def test_a_check_that_cannot_be_stored_is_told_and_the_next_one_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the connection is lost")

    checked = lambda *_, **__: ("1.0", [Result("init", True, "It began.", 1.0)])  # noqa: E731
    monkeypatch.setattr("execution.conformance.checking.check", checked)
    monkeypatch.setattr("execution.actions.record_check", away)
    with pytest.raises(SystemExit) as left:
        call_command("providers", "check")
    told = capsys.readouterr()
    assert left.value.code == 1
    for name in ("claude", "codex"):
        assert f"{name} 1.0: All 1 cases are kept." in told.out
        assert f"The result for {name} is not stored. Fleet cannot reach its database." in told.err
