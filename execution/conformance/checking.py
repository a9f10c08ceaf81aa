"""A whole check of one provider: our own model, settings that hold nothing of the operator's, and every case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.conf import settings

from execution.conformance.bench import Seen
from execution.conformance.model import CheckModel
from execution.conformance.running import Course, Result
from execution.providers import registry

_FAKE = "sk-ant-this-is-no-key-it-is-a-check"
_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def checkable(names: Sequence[str]) -> list[str]:
    """Return those providers that have something installed to check."""
    return [name for name in names if registry.get(name).capabilities.spawns_process]


def check(name: str, *, told: Callable[[Result], None], only: Sequence[str] = ()) -> tuple[str, list[Result]]:
    """Run the cases against what is installed; return the version it reported and how they ended. Touches no database.

    `told` hears each result as it comes.
    """
    found: list[Result] = []
    with CheckModel() as model, surroundings(name, model):
        provider = registry.make(name)
        if missing := provider.check() or _not_checkable(name):
            found.append(Result("init", False, missing, 0.0))
            told(found[0])
            return provider.version(), found
        provider.warm_up()
        seen = Seen()
        for result in Course(provider, model, seen, login=login).results(only):
            found.append(result)
            told(result)
    return seen.version or provider.version(), found


@contextmanager
def surroundings(name: str, model: CheckModel) -> Iterator[None]:
    """Let the settings of a check hold in this process; a check runs in a command of its own."""
    with _settings(_ours(name, model.url)):
        yield


@contextmanager
def login(case: str) -> Iterator[None]:
    """Let a case have the login it needs: the one of a used-up limit a subscription of nobody, since for Claude only those have one."""
    if case != "error: window":
        yield
        return
    with _settings({"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-of-nobody"}):
        yield


def _not_checkable(name: str) -> str:
    agent = settings.FLEET_ACP_AGENTS.get(name)
    if agent is None or agent.model_url:
        return ""
    return f"It cannot be checked: say in its declaration which variable names its model's address (“model_url” of {name})."


def _ours(name: str, url: str) -> dict[str, Any]:
    """Return the settings of a check: fake keys, our model, no login, and nothing of the environment but the path."""
    agents = dict(settings.FLEET_ACP_AGENTS)
    if name in agents:
        there = {agents[name].model_url: url} if agents[name].model_url else {}
        agents[name] = replace(agents[name], environment={**agents[name].environment, **there})
    return {
        "ANTHROPIC_API_KEY": _FAKE,
        "ANTHROPIC_BASE_URL": url,
        "CLAUDE_CODE_OAUTH_TOKEN": "",
        "OPENAI_API_KEY": _FAKE,
        "OPENAI_BASE_URL": f"{url}/v1",
        "FLEET_ACP_AGENTS": agents,
        "FLEET_ACP_SECRETS": dict.fromkeys(settings.FLEET_ACP_SECRETS, _FAKE),
        "FLEET_CLI_ENVIRONMENT": {"PATH": settings.FLEET_CLI_ENVIRONMENT.get("PATH", _SAFE_PATH)},
    }


@contextmanager
def _settings(ours: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(settings, name) for name in ours}
    try:
        for name, value in ours.items():
            setattr(settings, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)
