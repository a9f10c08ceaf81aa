"""The MCP servers of a bot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from identities.models import Identity, McpServer
from identities.ports import Connection


def connections(identity: Identity) -> tuple[Connection, ...]:
    """Return a bot's MCP servers by name, their secrets sealed; no query for a bot that never had one."""
    if not identity.mcp_version:
        return ()
    servers = McpServer.objects.filter(identity=identity).select_related("identity")
    return tuple(sorted((server.connection() for server in servers), key=lambda server: server.name))


@dataclass(frozen=True, slots=True)
class ServerView:
    """An MCP server as people see it. `target` is its program or address; `missing` are secrets that it names and nobody entered."""

    id: int
    name: str
    transport: str
    target: str
    settings: tuple[str, ...]
    secrets: tuple[str, ...]
    missing: tuple[str, ...]
    decisions: tuple[tuple[str, str], ...]


def server_views(identity: Identity, grants: Sequence[tuple[str, str]]) -> list[ServerView]:
    """Return a bot's MCP servers by name without any value of theirs, each with those of `grants` that are about its tools."""
    servers = McpServer.objects.filter(identity=identity).select_related("identity").order_by("name")
    return [_view(server, grants) for server in servers]


def _view(server: McpServer, grants: Sequence[tuple[str, str]]) -> ServerView:
    prefix = f"mcp__{server.name}__"
    return ServerView(
        id=server.pk,
        name=server.name,
        transport=str(server.transport),
        # What an address asks with, and all but the program of a command, may hold what nobody entered as a secret.
        target=_without_query(server.url) if server.url else server.command[0],
        settings=tuple(sorted(map(str, server.settings))),
        secrets=tuple(server.secret_names),
        missing=server.connection().missing(),
        decisions=tuple(grant for grant in grants if _concerns(grant[0], prefix)),
    )


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _concerns(pattern: str, prefix: str) -> bool:
    """Return whether a pattern may match a tool whose name begins like this."""
    fixed = pattern.partition("*")[0]
    return fixed.startswith(prefix) or ("*" in pattern and prefix.startswith(fixed))


def unsandboxed() -> list[Identity]:
    """Return the bots whose CLI may run without a sandbox."""
    return list(Identity.objects.exclude(sandbox_waiver="").order_by("slug"))
