"""Who may do what: people by the permission matrix, bots by their state and their tool grants."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from fleet.kernel.exceptions import Refused
from identities.models import Identity, Person, ToolGrant
from identities.permissions import Permission
from identities.ports import tool_name
from identities.states import IdentityState, ToolDecision


def check_can(person: Person, permission: Permission) -> None:
    """Raise Refused unless the matrix gives this person the permission."""
    if permission in person.permissions:
        return
    if not person.is_active:
        raise Refused(
            f"{person.get_username()} may not do this.",
            why="The account is switched off.",
            next_step="Ask an administrator to switch it on again.",
            code="account_off",
        )
    raise Refused(
        f"{person.get_username()} may not do this.",
        why=f"It takes the right “{permission.label}”, and no role of this person has it.",
        next_step="Ask an administrator for a role that has it.",
        code="no_right",
    )


def can(person: Person, permission: Permission) -> bool:
    """Return whether the matrix gives this person the permission."""
    return permission in person.permissions


_NOT_TAKING = {
    IdentityState.DRAFT: ("It is still being written.", "Ask an administrator to activate it."),
    IdentityState.PAUSED: ("It is paused.", "Ask an operator to resume it."),
    IdentityState.RETIRED: ("It is retired.", "Write to another bot."),
}


def check_takes_messages(identity: Identity) -> None:
    """Raise Refused unless the bot is active."""
    if identity.state == IdentityState.ACTIVE:
        return
    why, next_step = _NOT_TAKING[IdentityState(identity.state)]
    raise Refused(f"{identity.name} takes no messages.", why=why, next_step=next_step, code=f"bot_{identity.state}")


# What turns one shell command into several, or hides it: no pattern can promise anything about such a text.
_OPAQUE = re.compile(r"[;&|<>`\n\r\\]|\$\(|\$\{|\(|\)")
_STRICTEST_FIRST = (ToolDecision.DENY, ToolDecision.ASK, ToolDecision.ALLOW)


def tool_decision(grants: Iterable[ToolGrant], *, tool: str, target: str = "") -> ToolDecision | None:
    """Return the strictest grant that matches a tool call, or None when none does (which means deny).

    `target` is the command, path or address. `Bash(git *)` matches commands, `Read(docs/*)` paths, `mcp__crm__*` whole tools.
    A command that chains, redirects or substitutes is opaque: it matches every deny and ask of its tool and no allow with a pattern.
    """
    found = {ToolDecision(grant.decision) for grant in grants if _matches(grant, tool, target)}
    return next((decision for decision in _STRICTEST_FIRST if decision in found), None)


def _matches(grant: ToolGrant, tool: str, target: str) -> bool:
    name, scoped, scope = grant.pattern.partition("(")
    if not fnmatchcase(tool, tool_name(name)):
        return False
    if not scoped:
        return True
    if tool == "Bash" and _OPAQUE.search(target):
        return grant.decision != ToolDecision.ALLOW
    if tool != "Bash" and "://" not in target:
        target = posixpath.normpath(target)  # `docs/../secret` is not below docs
    return fnmatchcase(target, scope.removesuffix(")"))
