"""`manage.py stop`: what it cannot do it says, and nothing is stopped; what still lives is in its exit code."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from governance import ports
from governance.models import KillOrder
from tests.factories.execution import BotFactory

pytestmark = pytest.mark.django_db


def test_a_bot_that_nobody_knows_did_not_fall_silent() -> None:
    with pytest.raises(CommandError, match="no bot called 'adda'"):
        call_command("stop", "adda", "--reason", "drill")
    assert not KillOrder.objects.exists()


def test_a_stop_without_a_reason_is_refused_in_a_sentence() -> None:
    with pytest.raises(CommandError, match="needs a reason"):
        call_command("stop", "--reason", "  ")
    assert not KillOrder.objects.exists()


@pytest.mark.parametrize("wait", ["nan", "-1", "soon", "0"])
def test_it_waits_a_number_of_seconds(wait: str) -> None:
    with pytest.raises(CommandError, match="not a number of seconds"):
        call_command("stop", "--reason", "drill", "--wait", wait)
    assert not KillOrder.objects.exists()


def test_what_was_not_seen_gone_is_in_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bot = BotFactory()
    monkeypatch.setitem(ports._targets, "process", lambda _scope, _scope_id: iter(["4711"]))
    with pytest.raises(SystemExit) as left:
        call_command("stop", bot.slug, "--reason", "drill", "--wait", "0.1")
    assert left.value.code == 3
    assert "still alive: process 4711" in capsys.readouterr().out
    assert KillOrder.objects.get().scope_id == bot.slug


def test_when_all_is_quiet_it_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("stop", BotFactory().slug, "--reason", "drill")
    assert "everything is quiet" in capsys.readouterr().out
