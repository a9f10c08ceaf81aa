"""Where a bot works, and what its provider is told: everything that stands before the prompt itself."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from execution.models import Execution
from execution.ports import Confinement, Prompt
from execution.providers import registry
from identities import actions as identity_actions
from identities import queries as identity_queries
from identities.models import Identity
from identities.ports import Compiled, Connection

CANNOT_BRANCH = "Who answers here cannot branch off what was said before, so I start afresh."

_compiled: dict[str, Compiled] = {}  # slug → the bot as this process last saw it compiled
_connected: dict[
    str, tuple[int, tuple[Connection, ...]]
] = {}  # slug → version and MCP servers as this process last read them
_on_disk: dict[str, str] = {}  # slug → digest of the workspace this process last saw there


def prompt_for(execution: Execution, *, writes: bool = True) -> Prompt:
    """Return what the provider needs for this execution, with the bot's texts as they were when it was admitted, if still known.

    A turn that is at work already needs nothing written: its workspace is left as it is (`writes`).
    """
    identity = execution.identity
    texts = last_known(identity)
    if texts.digest != execution.versions.get("workspace"):
        texts = _compile(identity)
    return prompt_of(
        identity,
        texts,
        model=execution.model,
        session_id=execution.session_id,
        session_turns=execution.session_turns,
        forks=execution.fork_of if _branches(execution) else "",
        writes=writes,
    )


def _branches(execution: Execution) -> bool:
    """Return whether this is the first turn of a branch, and its provider knows what that is."""
    return execution.session_turns == 0 and registry.get(execution.provider).capabilities.forks_sessions


def last_known(identity: Identity) -> Compiled:
    """Return the bot as this process last saw it compiled: it may have changed since."""
    return _compiled.get(identity.slug) or _compile(identity)


def _compile(identity: Identity) -> Compiled:
    found = _compiled[identity.slug] = identity_queries.compiled(identity)
    return found


def prompt_of(
    identity: Identity,
    texts: Compiled,
    *,
    model: str,
    session_id: str,
    session_turns: int,
    forks: str = "",
    writes: bool = True,
) -> Prompt:
    """Return the prompt of a bot for one session; its workspace is written only when the bot's texts have moved."""
    servers = _servers(identity)
    return Prompt(
        system_prompt=texts.system_prompt,
        model=model,
        workspace=_workspace(identity, texts) if writes else Path(settings.FLEET_WORKSPACES) / identity.slug,
        home=Path(settings.FLEET_HOMES) / identity.slug,
        session_id=session_id,
        session_turns=session_turns,
        forks=forks,
        effort=identity.effort,
        max_turns=identity.max_turns,
        max_seconds=identity.max_minutes * 60,
        max_tool_calls=identity.max_tool_calls,
        max_megabytes=identity.max_megabytes,
        tools=texts.tools,
        mcp_config={server.name: server for server in servers},
        confinement=_confinement(identity, servers),
        chain=tuple(identity.provider_chain),
    )


def _servers(identity: Identity) -> tuple[Connection, ...]:
    """Return the bot's MCP servers; the database is asked only when they have changed."""
    version, servers = _connected.get(identity.slug, (0, ()))
    if identity.mcp_version != version:
        servers = identity_queries.connections(identity)
        _connected[identity.slug] = (identity.mcp_version, servers)
    return servers


def _confinement(identity: Identity, servers: tuple[Connection, ...]) -> Confinement:
    return Confinement(
        bot=identity.slug,
        network=str(identity.network),
        allowed=tuple(sorted(identity.allowed_hosts)),
        servers=tuple(sorted({urlsplit(server.url).netloc.lower() for server in servers if server.url})),
        waived=bool(identity.sandbox_waiver),
    )


def _workspace(identity: Identity, texts: Compiled) -> Path:
    root = Path(settings.FLEET_WORKSPACES)
    path = root / identity.slug
    if _on_disk.get(identity.slug) != texts.digest or not path.is_dir():
        path = identity_actions.compile_workspace(identity=identity, root=root, texts=texts).path
        _on_disk[identity.slug] = texts.digest
    return path
