"""Bots: creating and changing them, and their working life."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from fleet.kernel import journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from fleet.kernel.transitions import move
from identities import events
from identities.models import Identity, ToolGrant
from identities.states import IDENTITY, IdentityState, ToolDecision


@transaction.atomic
def create_identity(*, slug: str, name: str, by: Actor, **fields: Any) -> Identity:
    """Create a bot in the state draft. `fields` are the model's own (title, manager, owner, model …). Invalid for bad ones."""
    identity = Identity(slug=slug, name=name, **fields)
    _check(identity)
    identity.save()
    journal.record(events.IDENTITY_CREATED, by=by, subject=("identity", identity.pk), slug=slug, name=name)
    live.hint("fleet", identity=identity.pk)
    return identity


@transaction.atomic
def update_identity(*, identity: Identity, by: Actor, **changes: Any) -> Identity:
    """Change a bot's own fields (title, manager, owner, model, limits …); its slug and its state cannot be changed here."""
    row = Identity.objects.select_for_update(no_key=True).get(pk=identity.pk)
    before = {name: getattr(row, name) for name in changes}
    for name, value in changes.items():
        setattr(row, name, value)
    _check(row, only=changes.keys())
    _save(row, changes)
    journal.record(
        events.IDENTITY_CHANGED,
        by=by,
        subject=("identity", row.pk),
        changes={name: [_plain(before[name]), _plain(value)] for name, value in changes.items()},
    )
    live.hint("fleet", identity=row.pk)
    return row


def _check(identity: Identity, *, only: Collection[str] | None = None) -> None:
    """Raise Invalid for what cannot be stored. What was there before a rule was made stays until it is changed itself (`only`)."""
    kept = {field.name for field in Identity._meta.concrete_fields} - set(only) if only is not None else set()
    try:
        identity.full_clean(exclude=kept)
    except ValidationError as error:
        raise Invalid(
            f"The bot {identity.slug[:60]!r} cannot be stored like this.",
            why=" ".join(error.messages),
            next_step="Correct it and try again.",
        ) from error


def _save(row: Identity, changes: Mapping[str, Any]) -> None:
    try:
        with transaction.atomic():
            row.save(update_fields=list(changes))
    except IntegrityError as error:
        if "identity_manager_tree" not in str(error):
            raise
        raise Invalid(
            f"{row.name} cannot report to {row.manager}.",
            why="Somewhere up the line that manager reports to this bot.",
            next_step="Choose another manager.",
            code="manager_ring",
        ) from error


def _plain(value: Any) -> Any:
    """Return a field's value as plain JSON: rows by their readable name."""
    return value if isinstance(value, str | int | float | bool | list | None) else str(value)


def activate(*, identity: Identity, by: Actor) -> Identity:
    """Let a drafted bot take messages."""
    return _move(identity, IdentityState.ACTIVE, events.IDENTITY_ACTIVATED, by, "")


def pause(*, identity: Identity, by: Actor, reason: str = "") -> Identity:
    """Let a bot refuse messages until it is resumed. What it is doing now goes on: the kill switch stops that."""
    return _move(identity, IdentityState.PAUSED, events.IDENTITY_PAUSED, by, reason)


def resume(*, identity: Identity, by: Actor, reason: str = "") -> Identity:
    """Let a paused bot take messages again."""
    return _move(identity, IdentityState.ACTIVE, events.IDENTITY_RESUMED, by, reason)


def retire(*, identity: Identity, by: Actor, reason: str = "") -> Identity:
    """End a bot's working life; its history stays."""
    return _move(identity, IdentityState.RETIRED, events.IDENTITY_RETIRED, by, reason)


@transaction.atomic
def _move(identity: Identity, to: IdentityState, event: str, by: Actor, reason: str) -> Identity:
    details = {"slug": identity.slug, **({"reason": reason} if reason else {})}
    move(identity, IDENTITY, to, by=by, event=event, details=details)
    live.hint("fleet", identity=identity.pk)
    return identity


@transaction.atomic
def set_grants(*, identity: Identity, grants: Mapping[str, ToolDecision | str], by: Actor) -> None:
    """Replace a bot's tool grants by these: pattern to decision. Nothing is written when they are the same already."""
    Identity.objects.select_for_update(no_key=True).get(pk=identity.pk)
    before = {grant.pattern: str(grant.decision) for grant in ToolGrant.objects.filter(identity=identity)}
    wanted = {pattern: str(ToolDecision(decision)) for pattern, decision in grants.items()}
    if before == wanted:
        return
    ToolGrant.objects.filter(identity=identity).delete()
    rows = [ToolGrant(identity=identity, pattern=pattern, decision=decision) for pattern, decision in wanted.items()]
    for row in rows:
        _check_grant(row)
    ToolGrant.objects.bulk_create(rows)
    journal.record(
        events.GRANTS_SET, by=by, subject=("identity", identity.pk), slug=identity.slug, before=before, after=wanted
    )


def _check_grant(grant: ToolGrant) -> None:
    try:
        grant.clean_fields()
    except ValidationError as error:
        raise Invalid(
            f"{grant.pattern[:60]!r} is not a tool pattern.",
            why=" ".join(error.messages),
            next_step="Write it as Read, Bash(git *) or mcp__crm__*.",
        ) from error
