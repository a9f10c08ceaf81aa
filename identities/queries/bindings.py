"""The MCP servers of a bot."""

from __future__ import annotations

from identities.models import Identity, McpServer
from identities.ports import Connection


def connections(identity: Identity) -> tuple[Connection, ...]:
    """Return a bot's MCP servers by name, their secrets sealed; no query for a bot that never had one."""
    if not identity.mcp_version:
        return ()
    servers = McpServer.objects.filter(identity=identity).select_related("identity")
    return tuple(sorted((server.connection() for server in servers), key=lambda server: server.name))


def unsandboxed() -> list[Identity]:
    """Return the bots whose CLI may run without a sandbox."""
    return list(Identity.objects.exclude(sandbox_waiver="").order_by("slug"))
