"""From a started app-server to an open thread that keeps to our settings. Nothing here calls the model's API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from openai_codex.generated.v2_all import ThreadForkParams, ThreadResumeParams, ThreadStartParams

from execution.ports import Prompt
from execution.providers.codex import launch
from execution.providers.codex.rpc import Peer
from execution.providers.codex.threads import Thread

log = structlog.get_logger(__name__)
_SERVER_STATUS = "mcpServer/startupStatus/updated"
_CLIENT = {"name": "fleet", "title": "Fleet", "version": "1"}


class Unsafe(Exception):
    """The CLI does not do what our settings say, so it gets no prompt."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A thread that waits for its prompt."""

    thread: Thread
    version: str
    model: str


async def shake_hands(
    peer: Peer, prompt: Prompt, *, known: Thread | None, parent: Thread | None, servers: Mapping[str, Any]
) -> Opened:
    """Sign in and resume the known thread, or begin one, branched off its parent if it has one.

    Raises Unsafe, RequestRefused, or what ended the app-server.
    """
    hello = {"clientInfo": _CLIENT, "capabilities": {"experimentalApi": True}}
    version = _version_in(await peer.request("initialize", hello))
    if _numbers(version) < launch.OLDEST_VERSION:
        raise Unsafe(
            "It is older than the version whose rules for asking we know. Update it, or remove FLEET_CODEX_CLI."
        )
    await peer.notify("initialized")
    await peer.request("account/login/start", {"type": "apiKey", "apiKey": settings.OPENAI_API_KEY})
    opened = await _open_thread(peer, prompt, known, parent, servers)
    _check_keeps_to_settings(opened)
    await _wait_for(servers, peer)
    return Opened(known or _begun(str(opened["thread"]["id"]), parent), version, str(opened["model"]))


def _begun(thread_id: str, parent: Thread | None) -> Thread:
    return parent.branch(thread_id) if parent else Thread(thread_id)


async def _open_thread(
    peer: Peer, prompt: Prompt, known: Thread | None, parent: Thread | None, servers: Mapping[str, Any]
) -> dict[str, Any]:
    fields = {
        "base_instructions": prompt.system_prompt,
        "cwd": str(prompt.workspace),
        "model": prompt.model,
        "approval_policy": launch.ASKS,
        "sandbox": "workspace-write",
        **({"config": {"mcp_servers": servers}} if servers else {}),
    }
    if known is None and parent is not None:
        forked = ThreadForkParams.model_validate({**fields, "thread_id": parent.id, "exclude_turns": True})
        return await peer.request("thread/fork", forked)
    if known is None:
        return await peer.request("thread/start", ThreadStartParams.model_validate(fields))
    resumed = ThreadResumeParams.model_validate({**fields, "thread_id": known.id, "exclude_turns": True})
    return await peer.request("thread/resume", resumed)


async def _wait_for(servers: Mapping[str, Any], peer: Peer) -> None:
    """Wait until each MCP server was connected with, or could not be: what connects after the prompt could be anybody."""
    starting = set(servers)
    while starting:
        told = await anext(peer.incoming())
        if told.method == _SERVER_STATUS and told.params.get("status") != "starting":
            starting.discard(str(told.params.get("name")))
            if told.params.get("status") != "ready":
                log.warning("codex.server_not_ready", server=told.params.get("name"), status=told.params.get("status"))


def _check_keeps_to_settings(opened: dict[str, Any]) -> None:
    """Raise Unsafe unless the thread is as we asked for: a setting that is not obeyed would let commands run unasked."""
    sandbox = opened.get("sandbox") or {}
    asks = opened.get("approvalPolicy") == launch.ASKS and opened.get("approvalsReviewer") == "user"
    held = sandbox.get("type") == "workspaceWrite" and not sandbox.get("networkAccess")
    if not (asks and held) or opened.get("instructionSources"):
        raise Unsafe("It does not keep to our settings about asking before it acts.")


def _version_in(hello: dict[str, Any]) -> str:
    """Return the version in the user agent, which is all that `initialize` says about it: `fleet/0.163.0 (…)`."""
    found = re.search(r"/(\d+\.\d+\.\d+)", str(hello.get("userAgent", "")))
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")) if version else ()
