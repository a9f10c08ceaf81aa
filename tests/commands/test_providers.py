"""`manage.py providers`: a name that nobody knows is no good news."""

from __future__ import annotations

import logging

import pytest
from django.core.management import CommandError, call_command

from execution import actions
from execution.conformance.running import Result
from execution.providers import registry
from fleet.kernel.actors import Actor

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("verb", ["show", "check"])
def test_a_provider_that_nobody_knows_is_refused(verb: str) -> None:
    with pytest.raises(CommandError, match="nothing to check under “klaude”"):
        call_command("providers", verb, "klaude")


def test_warnings_are_held_back_during_a_check_and_no_longer() -> None:
    logger, seen = logging.getLogger("execution.providers"), []
    with pytest.MonkeyPatch.context() as during:
        during.setattr("execution.conformance.checking.check", lambda *_, **__: seen.append(logger.level) or ("1", []))
        with pytest.raises(SystemExit):
            call_command("providers", "check", "claude", "--only", "init")
    assert (seen, logger.level) == ([logging.ERROR], logging.NOTSET)


def test_agents_that_are_not_set_up_were_not_checked(settings) -> None:
    settings.FLEET_ACP_AGENTS = {}
    with pytest.raises(CommandError, match="No agent is set up"):
        call_command("providers", "check", "acp")


def test_the_exit_code_speaks_of_what_was_asked_about_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Result("init", True, "It began.", 1.0)
    for name in ("claude", "codex"):
        monkeypatch.setattr(type(registry.get(name)), "version", lambda _: "1.0")
        monkeypatch.setattr(type(registry.get(name)), "check", lambda _: "")
    actions.record_check(provider="codex", version="1.0", results=[case], by=Actor.system("test"))
    codes = {}
    for name in ("claude", "codex", "all"):
        with pytest.raises(SystemExit) as left:
            call_command("providers", "show", name)
        codes[name] = left.value.code
    assert codes == {"claude": 1, "codex": 0, "all": 1}
    assert "claude 1.0 has not been checked" in capsys.readouterr().out
