"""The cases of a check on an operator's machine, kept by every provider that ships: what `manage.py providers check` runs, one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings

from execution.conformance import cases, checking
from execution.conformance.bench import Seen, Words
from execution.conformance.model import CheckModel
from execution.conformance.running import Course
from execution.providers import registry
from tests.emulators import agents

pytestmark = pytest.mark.timeout(480)

# How the mock, which no model answers for, is told to behave so.
MOCKS = Words(
    tool="mock:tool=Bash",
    command="echo mock",
    output="mock",
    wait="mock:hang",
    failures={
        "auth": "mock:fail=auth",
        "rate": "mock:fail=limit",
        "overload": "mock:fail=overload",
        "context": "mock:fail=context_full",
    },
)
# It has no process, and its sessions no memory; what it pretends to use is looked at in the contract suite.
OF_THE_MOCK = ["text", "tool", "deny", "ask", "interrupt", "characters"]
OF_THE_MOCK += ["error: key", "error: limit", "error: overload", "error: context"]


@pytest.fixture(scope="module", params=["claude", "codex", "agent"])
def course(request: pytest.FixtureRequest) -> Iterator[Course]:
    """A check of a real CLI, whose cases are run here one by one."""
    name = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("execution.providers.claude.launch.RETRIES", 1)
        patch.setattr("execution.providers.codex.launch.RETRIES", 1)
        patch.setattr(settings, "FLEET_ACP_AGENTS", {"agent": agents.claude_agent("http://127.0.0.1:1")})
        patch.setattr(settings, "FLEET_ACP_SECRETS", {"AGENT_KEY": ""})
        an_agent = {"agent": "execution.providers.acp.provider.AcpProvider:agent"}
        patch.setattr(settings, "FLEET_PROVIDERS", {**settings.FLEET_PROVIDERS, **an_agent})
        with CheckModel() as model, checking.surroundings(name, model):
            provider = registry.make(name)
            assert provider.check() == ""
            provider.warm_up()
            yield Course(provider, model, Seen(), login=checking.login)


@pytest.mark.realcli
@pytest.mark.parametrize("case", [case for case in cases.CASES if not case.startswith("error")])
def test_a_real_cli_keeps(course: Course, case: str) -> None:
    can = course.provider.capabilities
    able = {"steer": can.steers, "fork": can.forks_sessions, "subagent": can.delegates}.get(case, True)
    assert (case in cases.applicable(can)) is able
    assert not able or course.result(case).sentence == ""


@pytest.mark.realcli
def test_a_real_cli_tells_every_failure(course: Course) -> None:
    """Those that it can tell apart, some at a time as in a check: most of it is waiting."""
    failures = [case for case in cases.applicable(course.provider.capabilities) if case.startswith("error")]
    assert len(failures) >= 7
    assert [(one.case, one.sentence) for one in course.results(failures) if not one.kept] == []


@pytest.mark.parametrize("case", OF_THE_MOCK)
def test_the_mock_keeps(case: str) -> None:
    provider = registry.make("mock")
    assert case in cases.applicable(provider.capabilities)
    with CheckModel() as model:
        assert Course(provider, model, Seen(), words=MOCKS).result(case).sentence == ""
