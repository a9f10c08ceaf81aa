"""A bot's MCP servers as its CLI gets them. No secret is in an argument, a variable of the CLI, or a file that outlives its start."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from execution.ports import Finished, NotPrepared, Prompt
from execution.sandbox.enclosing import is_enclosed, profile, surroundings
from execution.sandbox.mcp_host import PIPE
from execution.states import OutcomeClass
from fleet.kernel.exceptions import FleetError
from identities.ports import Connection
from identities.states import Transport

HOST = Path(__file__).with_name("mcp_host.py")
CONNECT = Path(__file__).with_name("mcp_connect.py")
OWN = Path("/tmp")  # noqa: S108 - in walls of its own, in memory


@dataclass(frozen=True, slots=True)
class Servers:
    """`configuration` by name as MCP clients write it, with secrets in the headers of addresses; `before` and `programs` for the
    CLI's `Needs`; `secrets` for the shim. Each of the `sockets` is there until somebody has connected.
    """

    configuration: dict[str, Any] = field(default_factory=dict, repr=False)
    before: tuple[str, ...] = ()
    programs: tuple[Path, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    sockets: tuple[Path, ...] = ()


def arrange(prompt: Prompt, scratch: Path, environment: Mapping[str, str], *, only_tools: bool = False) -> Servers:
    """Return how the CLI of this prompt gets its MCP servers. Programs are reached over sockets in `scratch`.

    `only_tools` keeps what else these programs have from a CLI that would read it unasked. Raises NotPrepared for a secret that
    is not there.
    """
    if not prompt.mcp_config:
        return Servers()
    try:
        secrets = {name: server.secrets() for name, server in prompt.mcp_config.items()}
    except FleetError as error:
        raise NotPrepared(
            Finished(OutcomeClass.GOVERNANCE, sentence=f"Nothing was started. {error.sentence}")
        ) from error
    programs = {name: s for name, s in prompt.mcp_config.items() if s.transport == Transport.STDIO}
    sockets = {name: scratch / f"mcp-{number}.sock" for number, name in enumerate(programs)}
    configuration = {name: _address(server, secrets[name]) for name, server in prompt.mcp_config.items() if server.url}
    kept = ("tools",) if only_tools else ()
    configuration |= {name: _connector(path, kept) for name, path in sockets.items()}
    if not programs:
        return Servers(configuration)
    told = [_program(prompt, server, sockets[name], environment) for name, server in programs.items()]
    return Servers(
        configuration,
        before=(sys.executable, "-I", "-S", os.fspath(HOST), json.dumps(told), "--"),
        programs=(Path(sys.base_prefix), Path(os.path.realpath(sys.executable)), CONNECT),
        secrets={PIPE: json.dumps({name: secrets[name] for name in programs})},
        sockets=tuple(sockets.values()),
    )


def _address(server: Connection, secrets: Mapping[str, str]) -> dict[str, Any]:
    return {"type": server.transport, "url": server.url, "headers": {**dict(server.settings), **secrets}}


def _connector(path: Path, kept: tuple[str, ...]) -> dict[str, Any]:
    arguments = ["-I", "-S", os.fspath(CONNECT), os.fspath(path), *kept]
    return {"type": "stdio", "command": os.path.realpath(sys.executable), "args": arguments, "env": {}}


def _program(prompt: Prompt, server: Connection, path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what the host starts: the server in walls of its own, where it sees the bot's workspace and nothing of its home.

    It begins in an empty directory of its own. Interpreters look for modules where they begin, and into the workspace the bot writes.
    """
    basic = {name: environment[name] for name in ("PATH", "LANG") if name in environment}
    argv = list(server.command)
    if is_enclosed(prompt.confinement):
        cwd, own = Path("/"), OWN
        argv = [*profile(prompt.workspace, begins=own).argv(), *argv]
        basic |= surroundings(basic, prompt.confinement)
    else:
        cwd = own = path.with_suffix("")
        own.mkdir(mode=0o700)
        argv[0] = shutil.which(argv[0], path=basic.get("PATH")) or argv[0]
    variables = {
        "HOME": os.fspath(own),
        "FLEET_WORKSPACE": os.fspath(prompt.workspace),
        **basic,
        **dict(server.settings),
    }
    return {
        "name": server.name,
        "socket": os.fspath(path),
        "argv": argv,
        "cwd": os.fspath(cwd),
        "environment": variables,
    }
