"""Souls and skills: every wording is kept for ever, a pointer says which one lives."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, NotFound, StateConflict
from identities import events
from identities.models import Identity, TextPointer, TextVersion
from identities.queries.bots import skill_description
from identities.states import TextKind

SOUL_NAME = "soul"
LONGEST_TEXT = 64 * 1024


@transaction.atomic
def publish_text(
    *, identity: Identity, kind: TextKind, name: str, content: str, by: Actor, origin: str = ""
) -> TextVersion:
    """Make `content` the live soul or skill of a bot and return its version; the same wording twice is one version.

    Lines end with a line feed and the text with one. A skill is a whole SKILL.md: front matter with a description, then
    what to do. Invalid for an empty text, one above 64 KiB, or a skill without description.
    """
    text = _clean(kind, name, content)
    Identity.objects.select_for_update(no_key=True).get(pk=identity.pk)
    pointer = _find_pointer(identity, kind, name)
    if pointer and pointer.live.content == text:
        return pointer.live
    version = _version(
        identity, kind, name, text, parent=pointer.live if pointer else None, author=by.name, origin=origin
    )
    TextPointer.objects.update_or_create(
        identity=identity,
        kind=kind,
        name=name,
        defaults={"live": version, "previous": pointer.live if pointer else None},
    )
    _journal(events.TEXT_PUBLISHED, identity, kind, name, by, version)
    return version


def _version(
    identity: Identity, kind: TextKind, name: str, text: str, *, parent: TextVersion | None, author: str, origin: str
) -> TextVersion:
    version = TextVersion(
        identity=identity,
        kind=kind,
        name=name,
        content=text,
        sha256=TextVersion.hash_of(text),
        parent=parent,
        author=author,
        origin=origin,
    )
    known = TextVersion.objects.filter(identity=identity, kind=kind, name=name, sha256=version.sha256).first()
    if known:
        return known
    try:
        version.clean_fields(exclude=["sha256"])
    except ValidationError as error:
        raise Invalid(f"The {kind} {name[:60]!r} cannot be stored.", why=" ".join(error.messages)) from error
    version.save()
    return version


@transaction.atomic
def revert_text(*, identity: Identity, kind: TextKind, name: str, by: Actor) -> TextVersion:
    """Change a text back to the wording before; doing it twice brings the newer one again."""
    Identity.objects.select_for_update(no_key=True).get(pk=identity.pk)
    pointer = _get_pointer(identity, kind, name)
    if pointer.previous is None:
        raise StateConflict(f"The {kind} {name!r} of {identity.name} has no earlier wording.")
    pointer.live, pointer.previous = pointer.previous, pointer.live
    pointer.save(update_fields=["live", "previous"])
    _journal(events.TEXT_REVERTED, identity, kind, name, by, pointer.live)
    return pointer.live


@transaction.atomic
def drop_text(*, identity: Identity, kind: TextKind, name: str, by: Actor) -> None:
    """Take a text away from a bot; its versions stay."""
    Identity.objects.select_for_update(no_key=True).get(pk=identity.pk)
    pointer = _get_pointer(identity, kind, name)
    pointer.delete()
    _journal(events.TEXT_DROPPED, identity, kind, name, by, pointer.live)


def _clean(kind: TextKind, name: str, content: str) -> str:
    text = content.replace("\r\n", "\n").strip() + "\n"
    problem = ""
    if text == "\n":
        problem = "It is empty."
    elif "\x00" in text:
        problem = "It contains a NUL character."
    elif len(text.encode(errors="replace")) > LONGEST_TEXT:
        problem = "It is longer than 64 KiB."
    elif kind == TextKind.SKILL and not skill_description(text):
        problem = "A skill begins with front matter that has a description."
    if problem:
        raise Invalid(
            f"The {kind} {name[:60]!r} cannot be published.", why=problem, next_step="Correct it and try again."
        )
    return text


def _find_pointer(identity: Identity, kind: TextKind, name: str) -> TextPointer | None:
    rows = TextPointer.objects.select_related("live", "previous")
    return rows.filter(identity=identity, kind=kind, name=name).first()


def _get_pointer(identity: Identity, kind: TextKind, name: str) -> TextPointer:
    pointer = _find_pointer(identity, kind, name)
    if pointer is None:
        raise NotFound(f"{identity.name} has no {kind} called {name[:60]!r}.")
    return pointer


def _journal(event: str, identity: Identity, kind: TextKind, name: str, by: Actor, version: TextVersion) -> None:
    journal.record(
        event,
        by=by,
        subject=("identity", identity.pk),
        slug=identity.slug,
        text=f"{kind}/{name}",
        version=version.pk,
        sha256=version.sha256,
    )
