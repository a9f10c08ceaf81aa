"""How one bot runs: the providers that answer for it, its MCP servers, its walls, its limits and its processes."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from execution import queries as execution_queries
from execution.providers import registry
from execution.sandbox import presence
from execution.states import BreakerState, Cause
from fleet.console import wording
from fleet.console.presenters import ChainRow, Runs, ServerRow
from fleet.console.screens.logins import login_kind
from fleet.console.statuses import Status, login_status
from identities import queries as identity_queries
from identities.models import Identity
from identities.queries import ServerView
from identities.states import NetworkPolicy, ToolDecision, Transport

_REACHED = {Transport.STDIO: "Program", Transport.HTTP: "Address (HTTP)", Transport.SSE: "Address (events)"}
_NETWORK = {
    NetworkPolicy.NONE: "Nobody, so turns fail where a CLI has to reach its provider",
    NetworkPolicy.PROVIDER: "Its provider and its MCP servers",
    NetworkPolicy.ALLOWLIST: "Its provider, its MCP servers and the allowed hosts",
    NetworkPolicy.OPEN: "Everybody that this machine reaches",
}


def runs_of(bot: Identity, grants: Sequence[tuple[str, str]]) -> Runs:
    """Return how a bot runs; `grants` are its tool patterns with their decisions. Two queries."""
    shut = execution_queries.shut_logins()
    choice = execution_queries.choose(bot, shut)
    answers = (choice.provider, choice.model) if isinstance(choice, execution_queries.Choice) else None
    guards = {(guard.provider, guard.login): guard for guard in shut}
    return Runs(
        chain=tuple(_link(place, name, bot, answers, guards) for place, name in enumerate(bot.provider_chain, 1)),
        note=_note(bot, answers),
        answers=answers,
        servers=tuple(_server(view) for view in identity_queries.server_views(bot, grants)),
        walls=_walls(bot),
        hosts=tuple(bot.allowed_hosts) if bot.network == NetworkPolicy.ALLOWLIST and _has_walls(bot) else (),
        limits=_limits(bot),
        processes=_processes(bot),
    )


def _link(
    place: int,
    name: str,
    bot: Identity,
    answers: tuple[str, str] | None,
    guards: dict[tuple[str, str], execution_queries.Shut],
) -> ChainRow:
    if name not in settings.FLEET_PROVIDERS:
        sentence = "This installation has no provider of this name."
        return ChainRow(place, name, "", "", Status("failed", "Unknown"), sentence, None)
    provider = registry.get(name)
    model, lacks = provider.capabilities.model_for(bot.model), provider.check()
    if lacks:
        return ChainRow(place, name, model, "", login_status("missing"), lacks, None)
    login = provider.login()
    named = f"{login_kind(provider.billing())} {login}" if login else ""
    if provider.capabilities.spawns_process and _reaches_nobody(bot):
        sentence = "The bot may not use the network at all. An administrator can allow it its provider."
        return ChainRow(place, name, model, named, Status("failed", "Out of reach"), sentence, None)
    guard = guards.get((name, login))
    if guard and guard.state == BreakerState.OPEN and not guard.may_be_tried:
        why = Cause(guard.cause).label.capitalize() if guard.cause else ""
        return ChainRow(place, name, model, named, login_status(guard.state), why, guard.until)
    status = Status("ok", "Answers next") if answers and name == answers[0] else Status("unknown", "In reserve")
    return ChainRow(place, name, model, named, _tried(guard) or status, "", None)


def _reaches_nobody(bot: Identity) -> bool:
    """Return whether its walls keep it from every model."""
    return bot.network == NetworkPolicy.NONE and _has_walls(bot)


def _has_walls(bot: Identity) -> bool:
    """Return whether its CLI runs behind walls; without them it is in the machine's network, whatever its policy says."""
    return presence.is_on() and not bot.sandbox_waiver


def _tried(guard: execution_queries.Shut | None) -> Status | None:
    return login_status(guard.state) if guard and guard.state == BreakerState.HALF_OPEN else None


def _note(bot: Identity, answers: tuple[str, str] | None) -> str:
    """Return what the chain's rows do not say: that nobody of it answers."""
    if answers is None:
        return "No login of this chain may be used now, so messages wait."
    if answers[0] in bot.provider_chain:
        unreachable = registry.get(answers[0]).capabilities.spawns_process and _reaches_nobody(bot)
        return "Its turns fail, as nobody who would answer can be reached." if unreachable else ""
    return "Nobody of this chain can answer, so the built-in mock does. It thinks nothing and costs nothing."


def _server(view: ServerView) -> ServerRow:
    status, sentence = _usable(view)
    return ServerRow(
        id=view.id,
        name=view.name,
        reached=_REACHED[Transport(view.transport)],
        target=view.target,
        settings=view.settings,
        secrets=tuple((name, name not in view.missing) for name in view.secrets),
        status=status,
        sentence=sentence,
    )


def _usable(view: ServerView) -> tuple[Status, str]:
    if view.missing:
        return Status("failed", "Secret missing"), f"Turns fail until a value is entered for {', '.join(view.missing)}."
    granted = [pattern for pattern, decision in view.decisions if decision != ToolDecision.DENY]
    if not granted:
        return Status("held", "Not usable"), f"No tool of it is granted. Allow mcp__{view.name}__* or single tools."
    return Status("ok", "Usable"), ", ".join(granted)


def _walls(bot: Identity) -> tuple[tuple[str, str], ...]:
    return (("Sandbox", _sandbox(bot)), ("Reaches", _network(bot)))


def _network(bot: Identity) -> str:
    policy = NetworkPolicy(bot.network)
    if _has_walls(bot) or policy == NetworkPolicy.OPEN:
        return _NETWORK[policy]
    return f"{_NETWORK[NetworkPolicy.OPEN]}: without a sandbox its policy ({policy.value}) does not hold"


def _sandbox(bot: Identity) -> str:
    if not presence.is_on():
        return "Off for every bot (FLEET_SANDBOX)"
    return f"Waived: {bot.sandbox_waiver}" if bot.sandbox_waiver else "Required"


def _limits(bot: Identity) -> tuple[tuple[str, str], ...]:
    return (
        ("Model turns", f"{bot.max_turns:,}"),
        ("Time", wording.count(bot.max_minutes, "minute")),
        ("Tool calls", f"{bot.max_tool_calls:,}" if bot.max_tool_calls else "none"),
        ("Memory", f"{bot.max_megabytes:,} MB" if bot.max_megabytes else "no limit"),
    )


def _processes(bot: Identity) -> tuple[tuple[str, str], ...]:
    return (
        ("At once", wording.count(bot.concurrency, "conversation")),
        ("Between turns", _between(bot)),
        ("Ready ahead", wording.count(bot.prewarmed, "process", "processes") if bot.prewarmed else "none"),
    )


def _between(bot: Identity) -> str:
    if not bot.warm:
        return "its process ends"
    if not settings.FLEET_WARM_PROCESSES:
        return "its process ends (FLEET_WARM_PROCESSES is 0)"
    seconds = settings.FLEET_WARM_SECONDS
    told = wording.duration(seconds) if seconds < 60 else wording.count(round(seconds / 60), "minute")
    return f"its process stays for {told}"
