"""The check of an installed CLI: one that does not keep it is found out, and doubts are told.

That the real ones keep each case is in `tests/contracts/test_cases.py`.
"""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from budgets.models import Reservation
from execution import actions, queries
from execution.conformance import cases, checking
from execution.conformance.bench import Seen, Words
from execution.conformance.cases import CASES
from execution.conformance.model import CheckModel
from execution.conformance.running import Course, Result
from execution.models import Execution, ProviderCheck
from execution.ports import Capabilities
from execution.providers import registry
from execution.providers.claude.session import ClaudeRun
from execution.toolcalls import Verdict
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry

BY = Actor.system("test")
KEPT, FAILED = Result("text", True, "", 1.0), Result("deny", False, "It ran what was refused.", 1.0)


@pytest.fixture
def claude_key(settings) -> None:
    settings.ANTHROPIC_API_KEY = "sk-ant-canary-of-the-operator"


@pytest.mark.realcli
def test_one_that_does_not_keep_it_is_found_out(monkeypatch) -> None:
    release = ClaudeRun.release
    monkeypatch.setattr(
        ClaudeRun, "release", lambda run, texts, judge: release(run, texts, judge=lambda _: Verdict(True))
    )
    version, results = checking.check("claude", told=lambda _: None, only=["text", "deny", "defer"])
    assert [(one.case, one.sentence) for one in results] == [
        ("text", ""),
        ("deny", "It ran what was refused."),
        ("defer", "It ran what was refused."),
    ]
    assert version and not Execution.objects.exists() and not Reservation.objects.exists()


def test_cases_that_only_wait_run_at_once_and_are_told_in_their_order() -> None:
    names = ["error: overload", "error: key", "text", "error: limit"]
    words = Words(failures={"overload": "mock:fail=overload mock:slow=0.5", "rate": "mock:fail=limit"})
    with CheckModel() as model:
        told = list(Course(registry.get("mock"), model, Seen(), words=words).results(names))
    assert [one.case for one in told] == names
    assert [one.kept for one in told] == [True, False, True, True]


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
    able = cases.applicable(Capabilities("x", resumes_sessions=True, forks_sessions=True, steers=True, delegates=True))
    assert set(able) - set(cases.applicable(Capabilities("x", interrupts=False, tells_context_full=False, tells_reset=False))) == {
        "resume", "defer", "fork", "interrupt", "steer", "subagent", "error: context", "error: window",
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
