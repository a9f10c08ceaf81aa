"""From a started agent to an open session. Nothing here calls a model's API, as far as the agent keeps to the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acp.connection import Connection
from acp.exceptions import RequestError
from acp.meta import AGENT_METHODS, PROTOCOL_VERSION
from acp.schema import InitializeResponse

from execution.ports import Prompt
from execution.providers.acp import launch
from execution.providers.acp.agents import Agent

Servers = Sequence[dict[str, Any]]
CONNECT_SECONDS, _LOOK_SECONDS = 15.0, 0.02
_CLIENT = {"name": "fleet", "title": "Fleet", "version": "1"}
# We serve neither files nor terminals: what the agent does, it does itself, where its sandbox is, and asks before.
_OFFER = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}


class Unsafe(Exception):
    """The agent does not do what our settings say, so it gets no prompt."""


class Lost(Exception):
    """The agent does not have the session any more. Whatever it took once for it, it may not have for another."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that waits for its prompt; `fresh` when it knows nothing of what was said before."""

    id: str
    version: str
    fresh: bool


async def shake_hands(
    connection: Connection, agent: Agent, prompt: Prompt, *, known: str, servers: Servers = ()
) -> Opened:
    """Resume the known session, or begin one. Raises Lost, Unsafe, RequestError, or ConnectionError when the agent ended."""
    hello = {"protocolVersion": PROTOCOL_VERSION, "clientInfo": _CLIENT, "clientCapabilities": _OFFER}
    told = InitializeResponse.model_validate(await connection.send_request(AGENT_METHODS["initialize"], hello))
    if told.protocol_version != PROTOCOL_VERSION:
        raise Unsafe(
            f"It speaks version {told.protocol_version} of the protocol, and Fleet version {PROTOCOL_VERSION}."
        )
    opened = await _open(connection, agent, prompt, known=known, servers=servers, told=told)
    if agent.mode:
        await _set_mode(connection, agent, opened.id)
    return opened


async def _open(
    connection: Connection, agent: Agent, prompt: Prompt, *, known: str, servers: Servers, told: InitializeResponse
) -> Opened:
    version = told.agent_info.version if told.agent_info else ""
    place = {"cwd": str(prompt.workspace), "mcpServers": list(servers), "_meta": launch.session_meta(agent, prompt)}
    method = _resuming(told) if known else ""
    if method:
        try:
            await connection.send_request(method, {**place, "sessionId": known})
        except RequestError as error:  # what was said there is gone
            raise Lost(str(error)) from error
        return Opened(known, version, fresh=False)
    begun: dict[str, Any] = await connection.send_request(AGENT_METHODS["session_new"], place)
    return Opened(str(begun["sessionId"]), version, fresh=True)


def _resuming(told: InitializeResponse) -> str:
    """Return the method that brings a session back: the one that repeats nothing of it, where the agent has it."""
    can = told.agent_capabilities
    if can is None:
        return ""
    if can.session_capabilities and can.session_capabilities.resume:
        return AGENT_METHODS["session_resume"]
    return AGENT_METHODS["session_load"] if can.load_session else ""


async def wait_connected(sockets: Sequence[Path]) -> None:
    """Wait until the agent has connected with all MCP servers: who does so after the prompt could be anybody. Raises Unsafe."""
    waited = 0.0
    while any(socket.exists() for socket in sockets):
        if waited > CONNECT_SECONDS:
            raise Unsafe("It did not connect with the bot's MCP servers before its first prompt.")
        waited += _LOOK_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)


async def _set_mode(connection: Connection, agent: Agent, session: str) -> None:
    """Switch to the mode in which the agent asks. Raises Unsafe when it has no such mode."""
    try:
        await connection.send_request(AGENT_METHODS["session_set_mode"], {"sessionId": session, "modeId": agent.mode})
    except RequestError as error:
        raise Unsafe(f"It has no mode “{agent.mode}”, in which it would ask before it acts.") from error
