"""Finding bots, and compiling one from its live texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import rfc8785
import yaml
from django.db.models import Q, QuerySet

from fleet.kernel.exceptions import NotFound
from identities.models import Identity, TextPointer, ToolGrant
from identities.ports import Compiled
from identities.states import IdentityState, TextKind, ToolDecision

INSTRUCTIONS = "CLAUDE.md"
SKILL_FILE = ".claude/skills/{name}/SKILL.md"


def find_identity(slug: str) -> Identity | None:
    """Return the bot, or None."""
    return Identity.objects.filter(slug=slug).first()


def get_identity(slug: str) -> Identity:
    """Return the bot; NotFound with a sentence otherwise."""
    identity = find_identity(slug)
    if identity is None:
        raise NotFound(
            f"There is no bot called {slug[:60]!r}.",
            next_step="See the console's Fleet page, or ./manage.py fleet export, for the names.",
            code="unknown_bot",
        )
    return identity


def identities() -> QuerySet[Identity]:
    """Return every bot that is not retired, with owner and manager, the oldest first."""
    return Identity.objects.select_related("owner", "manager").exclude(state=IdentityState.RETIRED).order_by("pk")


def compiled(identity: Identity) -> Compiled:
    """Return the bot as a provider sees it, without touching the disk; three queries.

    The same versions give the same bytes: no time, no sender and no order of rows goes in, so a provider's prompt cache holds.
    """
    pointers = TextPointer.objects.filter(identity=identity)
    # Sorted here, as databases sort by their own taste.
    texts = sorted(pointers.values_list("kind", "name", "live__content", "live__sha256"))
    tools = _tools(ToolGrant.objects.filter(identity=identity).values_list("pattern", "decision"))
    soul = next((content for kind, _, content, _ in texts if kind == TextKind.SOUL), "")
    skills = {name: content for kind, name, content, _ in texts if kind == TextKind.SKILL}
    prompt = _system_prompt(identity, soul, skills, can_read="Read" in tools)
    files = {INSTRUCTIONS: prompt.encode()}
    files |= {SKILL_FILE.format(name=name): content.encode() for name, content in skills.items()}
    return Compiled(
        slug=identity.slug,
        system_prompt=prompt,
        digest=_digest(identity.slug, files, tools),
        versions={"soul" if kind == TextKind.SOUL else f"skill/{name}": sha256 for kind, name, _, sha256 in texts},
        tools=tools,
        files=files,
    )


@lru_cache(maxsize=256)
def skill_description(content: str) -> str:
    """Return the description in a SKILL.md's front matter; empty when there is none."""
    head, separator, _ = content.removeprefix("---\n").partition("\n---\n")
    if not content.startswith("---\n") or not separator:
        return ""
    try:
        facts = yaml.safe_load(head)
    except yaml.YAMLError:
        return ""
    return " ".join(str(facts.get("description") or "").split()) if isinstance(facts, dict) else ""


def _tools(grants: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the tools a provider should offer: those with an allow, but none that is denied as a whole."""
    allowed, denied = set(), set()
    for pattern, decision in grants:
        if decision == ToolDecision.ALLOW:
            allowed.add(pattern.partition("(")[0])
        elif decision == ToolDecision.DENY and "(" not in pattern:
            denied.add(pattern)
    return tuple(sorted(allowed - denied))


def _digest(slug: str, files: dict[str, bytes], tools: tuple[str, ...]) -> str:
    contents = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return hashlib.sha256(rfc8785.dumps({"slug": slug, "files": contents, "tools": list(tools)})).hexdigest()


def _system_prompt(identity: Identity, soul: str, skills: dict[str, str], *, can_read: bool) -> str:
    parts = [_introduction(identity), soul.strip()]
    if skills:
        parts.append(_skill_index(skills) if can_read else _skill_texts(skills))
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(identity: Identity) -> str:
    """Return who the bot is, whom it reports to and who reports to it."""
    role = ", ".join(part for part in (identity.title, identity.department) if part)
    lines = [f"You are {identity.name}" + (f" ({role})." if role else ".")]
    near = Identity.objects.filter(Q(pk=identity.manager_id) | Q(manager=identity))
    names = near.exclude(state=IdentityState.RETIRED).values_list("slug", "name", "title", "pk")
    for slug, name, title, identifier in sorted(names):
        whose = "You report to" if identifier == identity.manager_id else "Reports to you:"
        lines.append(f"{whose} {name} ({title or slug}).")
    return "\n".join(lines)


def _skill_index(skills: dict[str, str]) -> str:
    lines = ["# Skills", "", "Before a task that one of these fits, read its file and follow it."]
    lines += [
        f"- {name}: {skill_description(content)} File: {SKILL_FILE.format(name=name)}"
        for name, content in skills.items()
    ]
    return "\n".join(lines)


def _skill_texts(skills: dict[str, str]) -> str:
    """Return the skills in full, for a bot that cannot open files."""
    return "\n\n".join(f"# Skill: {name}\n\n{content.strip()}" for name, content in skills.items())
