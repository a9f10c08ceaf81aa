"""The check of an installed CLI: the real ones keep it, one that does not is found out, and doubts are told."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from budgets.models import Reservation
from execution import actions, queries
from execution.conformance import cases, checking
from execution.conformance.cases import CASES, Result
from execution.conformance.model import CheckModel
from execution.models import Execution, ProviderCheck
from execution.ports import Capabilities, Verdict
from execution.providers import registry
from execution.providers.claude.session import ClaudeRun
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry
from tests.emulators import agents

BY = Actor.system("test")
KEPT, FAILED = Result("text", True, "", 1.0), Result("deny", False, "It ran what was refused.", 1.0)
SLOW = [name for name in CASES if name.startswith("error")]
QUICK = [name for name in CASES if name not in SLOW]


@pytest.fixture
def claude_key(settings) -> None:
    settings.ANTHROPIC_API_KEY = "sk-ant-canary-of-the-operator"


@pytest.mark.realcli
@pytest.mark.parametrize("name", ["claude", "codex", "agent"])
def test_the_real_clis_keep_it(name: str, settings, monkeypatch) -> None:
    monkeypatch.setattr("execution.providers.claude.launch.RETRIES", 1)
    monkeypatch.setattr("execution.providers.codex.launch.RETRIES", 1)
    settings.FLEET_ACP_AGENTS = {"agent": agents.claude_agent("http://127.0.0.1:1")}
    settings.FLEET_ACP_SECRETS = {"AGENT_KEY": ""}
    settings.FLEET_PROVIDERS = {
        **settings.FLEET_PROVIDERS,
        "agent": "execution.providers.acp.provider.AcpProvider:agent",
    }
    version, results = checking.check(name, told=lambda _: None)
    assert [f"{one.case}: {one.sentence}" for one in results if not one.kept] == []
    assert [one.case for one in results] == cases.applicable(registry.make(name).capabilities)
    assert version and not Execution.objects.exists() and not Reservation.objects.exists()


@pytest.mark.realcli
def test_one_that_does_not_keep_it_is_found_out(monkeypatch) -> None:
    release = ClaudeRun.release
    monkeypatch.setattr(
        ClaudeRun, "release", lambda run, texts, judge: release(run, texts, judge=lambda _: Verdict(True))
    )
    _, results = checking.check("claude", told=lambda _: None, only=["text", "tool", "deny"])
    assert [(one.case, one.kept) for one in results] == [("text", True), ("tool", False), ("deny", False)]
    assert results[-1].sentence == "It ran what was refused."


@pytest.mark.realcli
def test_the_key_of_the_operator_is_not_used_and_the_settings_come_back(settings, claude_key, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(CheckModel, "__exit__", lambda self, *_: seen.extend(self.keys) or self.stop())
    checking.check("claude", told=lambda _: None, only=["text"])
    assert seen and not any("canary" in key for key in seen)
    assert settings.ANTHROPIC_API_KEY == "sk-ant-canary-of-the-operator"


def test_a_cli_that_is_not_there_fails_with_what_to_do(settings) -> None:
    settings.FLEET_CODEX_CLI = "/no/such/codex"
    _, results = checking.check("codex", told=lambda _: None)
    assert [(one.kept, "/no/such/codex" in one.sentence) for one in results] == [(False, True)]


def test_what_a_provider_cannot_do_is_no_case_of_it() -> None:
    able = cases.applicable(Capabilities("x", resumes_sessions=True, steers=True))
    assert set(able) - set(cases.applicable(Capabilities("x", interrupts=False, tells_context_full=False))) == {
        "resume", "interrupt", "steer", "error: context",
    }  # fmt: skip
    assert able == list(CASES)


def test_a_version_that_was_not_checked_is_named(claude_key) -> None:
    (doubt,) = queries.doubts()
    assert "has not been checked; run ./manage.py providers check claude." in doubt
    version = registry.get("claude").version()
    actions.record_check(provider="claude", version="0.0.1", results=[KEPT], by=BY)
    assert "has not been checked" in queries.doubts()[0]
    actions.record_check(provider="claude", version=version, results=[KEPT, FAILED], by=BY)
    assert queries.doubts() == [f"claude {version} failed its check (deny); see ./manage.py providers."]
    actions.record_check(provider="claude", version=version, results=[KEPT], by=BY)
    assert queries.doubts() == []


def test_a_check_stands_in_the_journal() -> None:
    actions.record_check(provider="claude", version="1.2.3", results=[KEPT, FAILED], by=BY)
    check, entry = ProviderCheck.objects.get(), JournalEntry.objects.get(event="execution.provider.checked")
    assert (check.kept, [case["case"] for case in check.cases]) == (False, ["text", "deny"])
    assert (entry.subject_id, entry.details["failed"]) == ("claude", ["deny"])


@pytest.mark.parametrize(("results", "code"), [([KEPT], 0), ([KEPT, FAILED], 1)])
def test_the_command_says_by_its_exit_code_how_it_went(monkeypatch, results: list[Result], code: int) -> None:
    monkeypatch.setattr(
        checking, "check", lambda name, told, only: ([told(one) for one in results], ("1.2.3", results))[1]
    )
    said = StringIO()
    with pytest.raises(SystemExit) as end:
        call_command("providers", "check", "claude", stdout=said)
    assert end.value.code == code
    assert ProviderCheck.objects.get().version == "1.2.3"
    assert ("It ran what was refused." in said.getvalue()) is bool(code)
