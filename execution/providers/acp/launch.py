"""What an agent is started with: its command, its environment, its directories. Nothing secret is an argument."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from execution.ports import Prompt
from execution.providers.acp.agents import SYSTEM_PROMPT, Agent
from execution.sandbox import Needs, Servers, arrange, check_enclosable, enclose, own_directories, scratch
from identities.states import Transport

_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one agent. `servers` are the bot's MCP servers as it is told of them, `sockets` where they wait for it."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    cwd: Path
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    scratch: Path | None = None
    network: str = field(default="", repr=False)  # with the password of the company's proxy in it
    servers: tuple[dict[str, Any], ...] = ()
    sockets: tuple[Path, ...] = ()


def prepare(agent: Agent, prompt: Prompt) -> Launch:
    """Return how to start the agent for this prompt, with its directories in place."""
    check_enclosable(prompt.confinement)
    own_directories(prompt.home, prompt.home / "tmp")
    if not prompt.mcp_config:
        return _plan(agent, prompt, None)
    with scratch() as place:
        return _plan(agent, prompt, place)


def _plan(agent: Agent, prompt: Prompt, scratch: Path | None) -> Launch:
    environment = _environment(agent, prompt)
    servers = arrange(prompt, scratch, environment, only_tools=True) if scratch else Servers()
    program = _program(agent) or agent.command[0]
    needs = Needs(
        programs=(Path(program).resolve(), *(Path(path) for path in agent.reads), *servers.programs),
        writable=(scratch,) if scratch else (),
        api=agent.address,
        before=servers.before,
    )
    enclosed = enclose((program, *agent.command[1:]), environment, prompt=prompt, needs=needs)
    return Launch(
        enclosed.argv,
        enclosed.environment,
        prompt.workspace,
        servers.secrets | {theirs: settings.FLEET_ACP_SECRETS[name] for theirs, name in agent.pipes.items()},
        scratch,
        enclosed.network,
        tuple(_server(name, said) for name, said in servers.configuration.items() if said["type"] == Transport.STDIO),
        servers.sockets,
    )


def _server(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return a program in the protocol's words. Addresses are left out: nobody knows where an agent puts the secrets in their headers."""
    return {"name": name, "command": said["command"], "args": said["args"], "env": []}


def missing(agent: Agent) -> str:
    """Return what the agent lacks to be started, as a sentence; nothing when it has all."""
    if _program(agent) is None:
        return f"There is no {agent.command[0]} to run {agent.name} with. Install it, or correct the file FLEET_ACP_AGENTS names."
    if not agent.address:
        return (
            f"Where the model of {agent.name} is was not declared, so its sandbox would keep it away: add “api”, or “model_url” with its "
            "variable, to the file FLEET_ACP_AGENTS names."
        )
    absent = [ours for ours in agent.keys if not settings.FLEET_ACP_SECRETS.get(ours)]
    return f"To talk to {agent.name}, set {' and '.join(absent)} in .env and restart." if absent else ""


def _program(agent: Agent) -> str | None:
    return shutil.which(agent.command[0], path=settings.FLEET_CLI_ENVIRONMENT.get("PATH", _SAFE_PATH))


def session_meta(agent: Agent, prompt: Prompt) -> dict[str, Any]:
    """Return what the agent is told about the session beyond the protocol, as the settings say."""
    values = {SYSTEM_PROMPT: prompt.system_prompt, "{model}": prompt.model, "{tools}": list(prompt.tools)}
    filled: dict[str, Any] = _filled(dict(agent.session), values)
    return filled


def _filled(said: Any, values: Mapping[str, Any]) -> Any:
    match said:
        case dict():
            return {key: _filled(value, values) for key, value in said.items()}
        case list():
            return [_filled(value, values) for value in said]
        case str():
            return values.get(said, said)
    return said


def _environment(agent: Agent, prompt: Prompt) -> dict[str, str]:
    """Return all that the agent sees of the world. A key is among it, if the agent takes it in no other way."""
    ours = {"HOME": str(prompt.home), "PWD": str(prompt.workspace), "TMPDIR": str(prompt.home / "tmp")}
    keys = {theirs: settings.FLEET_ACP_SECRETS[name] for theirs, name in agent.secrets.items()}
    return {
        "PATH": _SAFE_PATH,
        "LANG": "C.UTF-8",
        **settings.FLEET_CLI_ENVIRONMENT,
        **agent.environment,
        **keys,
        **ours,
    }
