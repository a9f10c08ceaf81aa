"""The fleet as a declaration: what `fleet.yaml` says, what the database holds, and the difference between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

from identities.models import Identity, McpServer, TextPointer, ToolGrant
from identities.states import IdentityState, TextKind

_OPTIONAL = ("owner", "network", "allowed_hosts", "mcp_servers")


@dataclass(frozen=True, slots=True)
class ServerDeclaration:
    """An MCP server of a bot. `secrets` are names; their values are never in a file."""

    transport: str
    command: tuple[str, ...] = ()
    url: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()

    def __str__(self) -> str:
        settings = " ".join(f"{name}={text}" for name, text in self.settings)
        needs = f"needs {', '.join(self.secrets)}" if self.secrets else ""
        parts = (self.transport, self.url or " ".join(self.command), settings, needs)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class BotDeclaration:
    """One bot of `fleet.yaml`. None leaves a thing as it is (a new bot gets its default); other fields left out mean their default."""

    slug: str
    name: str
    title: str = ""
    department: str = ""
    manager: str = ""
    owner: str | None = None
    state: str = IdentityState.ACTIVE
    providers: tuple[str, ...] = ("claude",)
    model: str = "claude-haiku-4-5"
    effort: str = ""
    max_turns: int = 30
    max_minutes: int = 15
    max_tool_calls: int = 100
    max_megabytes: int = 2048
    concurrency: int = 4
    warm: bool = True
    prewarmed: int = 0
    timezone: str = "UTC"
    soul: str = ""
    skills: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    network: str | None = None
    allowed_hosts: tuple[str, ...] | None = None
    mcp_servers: dict[str, ServerDeclaration] | None = None

    def facts(self) -> dict[str, str]:
        """Return everything it says as flat texts, without what is empty: `model`, `skill/brief`, `tool/Read` …"""
        flat = {f"skill/{name}": text for name, text in self.skills.items()}
        flat |= {f"tool/{name}": decision for name, decision in self.tools.items()}
        flat |= {f"mcp_servers/{name}": str(server) for name, server in (self.mcp_servers or {}).items()}
        flat["providers"] = ", ".join(self.providers)
        flat["allowed_hosts"] = ", ".join(self.allowed_hosts or ())
        for item in fields(self):
            if item.name not in ("slug", "skills", "tools", "providers", "allowed_hosts", "mcp_servers"):
                flat[item.name] = "" if getattr(self, item.name) is None else str(getattr(self, item.name))
        return {name: text for name, text in flat.items() if text}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: what `field` of `slug` is now and what the declaration wants. None: not there."""

    slug: str
    field: str
    before: str | None
    after: str | None


def declared_fleet() -> list[BotDeclaration]:
    """Return every bot of the database as a declaration, in the order they were made; four queries."""
    souls: dict[int, str] = {}
    skills: dict[int, dict[str, str]] = defaultdict(dict)
    for pointer in TextPointer.objects.select_related("live"):
        if pointer.kind == TextKind.SOUL:
            souls[pointer.identity_id] = pointer.live.content
        else:
            skills[pointer.identity_id][pointer.name] = pointer.live.content
    tools: dict[int, dict[str, str]] = defaultdict(dict)
    for grant in ToolGrant.objects.all():
        tools[grant.identity_id][grant.pattern] = str(grant.decision)
    servers: dict[int, dict[str, ServerDeclaration]] = defaultdict(dict)
    for server in McpServer.objects.order_by("name"):
        servers[server.identity_id][server.name] = _declare_server(server)
    rows = Identity.objects.select_related("manager", "owner").order_by("pk")
    return [_declare(row, souls.get(row.pk, ""), skills[row.pk], tools[row.pk], servers[row.pk]) for row in rows]


def _declare_server(server: McpServer) -> ServerDeclaration:
    return ServerDeclaration(
        transport=str(server.transport),
        command=tuple(server.command),
        url=server.url,
        settings=tuple(sorted((str(name), str(text)) for name, text in server.settings.items())),
        secrets=tuple(server.secret_names),
    )


def _declare(
    row: Identity, soul: str, skills: dict[str, str], tools: dict[str, str], servers: dict[str, ServerDeclaration]
) -> BotDeclaration:
    return BotDeclaration(
        slug=row.slug,
        name=row.name,
        title=row.title,
        department=row.department,
        manager=row.manager.slug if row.manager else "",
        owner=row.owner.get_username() if row.owner else None,
        state=str(row.state),
        providers=tuple(row.provider_chain),
        model=row.model,
        effort=str(row.effort),
        max_turns=row.max_turns,
        max_minutes=row.max_minutes,
        max_tool_calls=row.max_tool_calls,
        max_megabytes=row.max_megabytes,
        concurrency=row.concurrency,
        warm=row.warm,
        prewarmed=row.prewarmed,
        timezone=row.timezone,
        soul=soul,
        skills=dict(sorted(skills.items())),
        tools=dict(sorted(tools.items())),
        network=str(row.network),
        allowed_hosts=tuple(row.allowed_hosts),
        mcp_servers=servers,
    )


def differences(current: Sequence[BotDeclaration], wanted: Sequence[BotDeclaration]) -> Iterator[Change]:
    """Yield what has to change so that the database says what the declaration says. Bots it does not name stay as they are."""
    now = {bot.slug: bot.facts() for bot in current}
    for bot in wanted:
        before, after = now.get(bot.slug, {}), bot.facts()
        unsaid = {name for name in _OPTIONAL if getattr(bot, name) is None}
        before = {name: value for name, value in before.items() if name.partition("/")[0] not in unsaid}
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield Change(bot.slug, name, before.get(name), after.get(name))
