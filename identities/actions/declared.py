"""The fleet as one YAML file: read it, write it, and make the database say what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from django.db import transaction

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, StateConflict
from identities.actions import bindings, bots, people, texts
from identities.models import Identity, McpServer, Person
from identities.queries import get_person
from identities.queries.declared import BotDeclaration, Change, ServerDeclaration, declared_fleet, differences
from identities.states import IDENTITY, IdentityState, TextKind, Transport
from identities.validators import unknown_providers

SAMPLE = Path(__file__).resolve().parent.parent / "sample" / "fleet.yaml"
VERSION = 1
_LIMITS = {
    "turns": "max_turns",
    "minutes": "max_minutes",
    "tool_calls": "max_tool_calls",
    "megabytes": "max_megabytes",
    "concurrency": "concurrency",
    "prewarmed": "prewarmed",
}
_TEXTS = ("slug", "name", "title", "department", "manager", "owner", "state", "model", "effort", "timezone", "soul")
_KEYS = {*_TEXTS, "providers", "warm", "limits", "skills", "tools", "network", "allowed_hosts", "mcp_servers"}
_SERVER_KEYS = {"command", "url", "transport", "settings", "secrets"}


def read_declaration(text: str) -> list[BotDeclaration]:
    """Return the bots of a fleet.yaml; Invalid names the bot and what is wrong with it."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _invalid("It is not YAML", str(error)) from error
    if (
        not isinstance(document, dict)
        or document.get("version") != VERSION
        or not isinstance(document.get("bots"), list)
    ):
        raise _invalid("It is not a fleet", f"It begins with `version: {VERSION}` and has a list of `bots`.")
    declared = [_read_bot(entry) for entry in document["bots"]]
    slugs = [bot.slug for bot in declared]
    twice = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    if twice:
        raise _invalid("A bot is there twice", ", ".join(twice))
    return declared


def _read_bot(entry: Any) -> BotDeclaration:
    slug = str(entry.get("slug", "?")) if isinstance(entry, dict) else "?"
    if not isinstance(entry, dict) or "slug" not in entry or "name" not in entry:
        raise _invalid(f"Bot {slug}", "It needs at least `slug` and `name`.")
    unknown = sorted(str(key) for key in entry.keys() - _KEYS)
    if unknown:
        raise _invalid(f"Bot {slug}", f"It has unknown keys: {', '.join(unknown)}.")
    limits, skills, tools = (entry.get(key) or {} for key in ("limits", "skills", "tools"))
    if not all(isinstance(part, dict) for part in (limits, skills, tools)) or limits.keys() - _LIMITS.keys():
        raise _invalid(f"Bot {slug}", f"`limits` ({', '.join(_LIMITS)}), `skills` and `tools` are mappings.")
    values: dict[str, Any] = {key: str(entry[key]) for key in _TEXTS if entry.get(key) is not None}
    values |= {_LIMITS[key]: _number(slug, key, value) for key, value in limits.items()}
    if entry.get("providers"):
        values["providers"] = _providers(slug, entry["providers"])
    if entry.get("warm") is not None:
        values["warm"] = _switch(slug, "warm", entry["warm"])
    values["soul"] = _wording(entry.get("soul"))
    values["skills"] = {str(name): _wording(text) for name, text in sorted(skills.items())}
    values["tools"] = {str(name): str(decision) for name, decision in sorted(tools.items())}
    return BotDeclaration(**values, **_read_bindings(slug, entry))


def _providers(slug: str, names: Any) -> tuple[str, ...]:
    chain = tuple(str(name) for name in names)
    if unknown := unknown_providers(chain):
        raise _invalid(f"Bot {slug}", f"There is no provider called {unknown}.")
    return chain


def _read_bindings(slug: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return whom it reaches and its MCP servers, as far as the file says something about them."""
    found: dict[str, Any] = {}
    if entry.get("network") is not None:
        found["network"] = str(entry["network"])
    for key, kind in (("allowed_hosts", list), ("mcp_servers", dict)):
        if entry.get(key) is not None and not isinstance(entry[key], kind):
            raise _invalid(f"Bot {slug}", "`allowed_hosts` is a list of hosts, `mcp_servers` a mapping by name.")
    if entry.get("allowed_hosts") is not None:
        found["allowed_hosts"] = tuple(str(host) for host in entry["allowed_hosts"])
    if entry.get("mcp_servers") is not None:
        found["mcp_servers"] = {str(name): _read_server(slug, told) for name, told in entry["mcp_servers"].items()}
    return found


def _read_server(slug: str, told: Any) -> ServerDeclaration:
    """Return an MCP server; the file names its secrets and never holds them."""
    if not isinstance(told, dict) or told.keys() - _SERVER_KEYS:
        raise _invalid(f"Bot {slug}", f"An MCP server has {', '.join(sorted(_SERVER_KEYS))}.")
    command, secrets, settings = (told.get(key) or () for key in ("command", "secrets", "settings"))
    if isinstance(command, str) or isinstance(secrets, str | dict) or (settings and not isinstance(settings, dict)):
        raise _invalid(f"Bot {slug}", "An MCP server's `command` and `secrets` are lists, its `settings` a mapping.")
    url = str(told.get("url") or "")
    return ServerDeclaration(
        transport=str(told.get("transport") or (Transport.HTTP if url else Transport.STDIO)),
        command=tuple(str(part) for part in command),
        url=url,
        settings=tuple(sorted((str(name), str(text)) for name, text in dict(settings).items())),
        secrets=tuple(sorted(str(name) for name in secrets)),
    )


def _number(slug: str, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _invalid(f"Bot {slug}", f"The limit `{key}` is a whole number.")
    return value


def _switch(slug: str, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(f"Bot {slug}", f"`{key}` is true or false.")
    return value


def _wording(text: Any) -> str:
    """Return a text as `publish_text` keeps it, so that the same file is no change."""
    stripped = str(text or "").replace("\r\n", "\n").strip()
    return f"{stripped}\n" if stripped else ""


def _invalid(what: str, why: str) -> Invalid:
    return Invalid(f"{what}: the fleet file cannot be read.", why=why, next_step="Correct the file and try again.")


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that a person can read and compare them."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def write_declaration(declared: Iterable[BotDeclaration]) -> str:
    """Return the fleet.yaml of these bots; reading it back gives the same bots."""
    document = {"version": VERSION, "bots": [_entry(bot) for bot in declared]}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _entry(bot: BotDeclaration) -> dict[str, Any]:
    values: dict[str, Any] = {key: getattr(bot, key) for key in _TEXTS if key != "soul"}
    values["providers"] = list(bot.providers)
    values["limits"] = {key: getattr(bot, name) for key, name in _LIMITS.items()}
    values |= {"tools": bot.tools, "network": bot.network}
    values = {key: value for key, value in values.items() if value}
    if not bot.warm:
        values["warm"] = False
    # Said also when there are none: left out, it would mean that those that are there stay.
    if bot.allowed_hosts is not None:
        values["allowed_hosts"] = list(bot.allowed_hosts)
    if bot.mcp_servers is not None:
        values["mcp_servers"] = {name: _server_entry(server) for name, server in bot.mcp_servers.items()}
    return values | {key: value for key, value in (("soul", bot.soul), ("skills", bot.skills)) if value}


def _server_entry(server: ServerDeclaration) -> dict[str, Any]:
    told: dict[str, Any] = {"transport": server.transport, "command": list(server.command), "url": server.url}
    told |= {"settings": dict(server.settings), "secrets": list(server.secrets)}
    return {key: value for key, value in told.items() if value}


@transaction.atomic
def apply_fleet(*, declared: Sequence[BotDeclaration], by: Actor, owner: Person | None = None) -> list[Change]:
    """Make every declared bot what the declaration says and return what was changed; applying it again changes nothing.

    Bots it does not name stay as they are. `owner` becomes the owner of new bots that name none.
    """
    changes = list(differences(declared_fleet(), declared))
    changed = {change.slug: set[str]() for change in changes}
    for change in changes:
        changed[change.slug].add(change.field)
    rows = {row.slug: row for row in Identity.objects.select_related("manager")}
    for bot in declared:
        if bot.slug not in rows:
            rows[bot.slug] = bots.create_identity(slug=bot.slug, name=bot.name, owner=owner, by=by)
        elif rows[bot.slug].manager and "manager" in changed.get(bot.slug, ()):
            # Freed first, so that two who change places are never each other's manager on the way.
            rows[bot.slug] = bots.update_identity(identity=rows[bot.slug], by=by, manager=None)
    for bot in declared:
        if bot.slug in changed:
            _apply_bot(rows, bot, changed[bot.slug], by)
    return changes


def _apply_bot(rows: dict[str, Identity], bot: BotDeclaration, changed: set[str], by: Actor) -> None:
    row = rows[bot.slug]
    fields = _fields(rows, bot)
    wanted = {name: value for name, value in fields.items() if getattr(row, name) != value}
    if wanted:
        row = bots.update_identity(identity=row, by=by, **wanted)
    if bot.soul and "soul" in changed:
        texts.publish_text(identity=row, kind=TextKind.SOUL, name=texts.SOUL_NAME, content=bot.soul, by=by)
    elif "soul" in changed:
        texts.drop_text(identity=row, kind=TextKind.SOUL, name=texts.SOUL_NAME, by=by)
    for name in sorted(field.partition("/")[2] for field in changed if field.startswith("skill/")):
        _apply_skill(row, name, bot.skills.get(name), by)
    for name in sorted(field.partition("/")[2] for field in changed if field.startswith("mcp_servers/")):
        _apply_server(row, name, (bot.mcp_servers or {}).get(name), by)
    if any(field.startswith("tool/") for field in changed):
        bots.set_grants(identity=row, grants=bot.tools, by=by)
    if row.state != bot.state:
        _bring_to(row, bot.state, by)


def _fields(rows: dict[str, Identity], bot: BotDeclaration) -> dict[str, Any]:
    if bot.manager and bot.manager not in rows:
        raise _invalid(f"Bot {bot.slug}", f"Its manager {bot.manager!r} does not exist.")
    fields = {name: getattr(bot, name) for name in ("name", "title", "department", "model", "effort", "timezone")}
    fields |= {name: getattr(bot, name) for name in (*_LIMITS.values(), "warm")}
    fields["provider_chain"] = list(bot.providers)
    fields["manager"] = rows[bot.manager] if bot.manager else None
    if bot.owner is not None:
        fields["owner"] = get_person(bot.owner)
    if bot.network is not None:
        fields["network"] = bot.network
    if bot.allowed_hosts is not None:
        fields["allowed_hosts"] = list(bot.allowed_hosts)
    return fields


def _apply_skill(row: Identity, name: str, content: str | None, by: Actor) -> None:
    if content is None:
        texts.drop_text(identity=row, kind=TextKind.SKILL, name=name, by=by)
    else:
        texts.publish_text(identity=row, kind=TextKind.SKILL, name=name, content=content, by=by)


def _apply_server(row: Identity, name: str, wanted: ServerDeclaration | None, by: Actor) -> None:
    if wanted is None:
        bindings.remove_server(server=McpServer.objects.select_related("identity").get(identity=row, name=name), by=by)
        return
    bindings.connect_server(
        identity=row,
        name=name,
        transport=wanted.transport,
        command=wanted.command,
        url=wanted.url,
        settings=dict(wanted.settings),
        secret_names=wanted.secrets,
        by=by,
    )


_STEPS: dict[tuple[str, str], tuple[Callable[..., Identity], ...]] = {
    (IdentityState.DRAFT, IdentityState.ACTIVE): (bots.activate,),
    (IdentityState.DRAFT, IdentityState.PAUSED): (bots.activate, bots.pause),
    (IdentityState.ACTIVE, IdentityState.PAUSED): (bots.pause,),
    (IdentityState.PAUSED, IdentityState.ACTIVE): (bots.resume,),
    **{(state, IdentityState.RETIRED): (bots.retire,) for state in IDENTITY.live},
}


def _bring_to(row: Identity, state: str, by: Actor) -> None:
    """Take the steps of a bot's life that lead to `state`; StateConflict when none do."""
    steps = _STEPS.get((row.state, state), ())
    if not steps:
        raise StateConflict(
            f"{row.name} is {row.state} and cannot become {state[:20]}.", next_step="Correct `state` in the fleet file."
        )
    for step in steps:
        step(identity=row, by=by)


@transaction.atomic
def seed_fleet(*, by: Actor) -> int:
    """Load the sample fleet into an empty house, with `operator` as its owner; return how many bots came. Else do nothing."""
    if Identity.objects.exists():
        return 0
    owner = people.ensure_first_person(by=by)
    declared = read_declaration(SAMPLE.read_text())
    apply_fleet(declared=declared, by=by, owner=owner)
    return len(declared)
