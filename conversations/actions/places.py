"""Where talk happens: the conversation a message belongs to, made on first use."""

from __future__ import annotations

from conversations.models import Conversation, InboundMessage
from conversations.queries import place_of
from fleet.kernel import journal
from fleet.kernel.actors import Actor
from identities.models import Identity, Person

TITLE_LENGTH = 60


def enter(row: InboundMessage, identity: Identity, person: Person) -> Conversation:
    """Return the conversation of this message, its row locked: whoever holds it decides about the lane.

    The lock leaves keys alone, so that a turn can close (and add its message) while somebody decides here.
    """
    place = place_of(row, identity)
    locked = Conversation.objects.select_for_update(of=("self",), no_key=True)
    found = locked.filter(**place).first()
    if found:
        return found
    fresh = Conversation(**place, person=person, title=_title(row.text))
    Conversation.objects.bulk_create([fresh], ignore_conflicts=True)
    conversation = locked.get(**place)
    journal.record(
        "conversations.conversation.opened",
        by=Actor.person(person),
        subject=("conversation", conversation.pk),
        account=row.account,
    )
    return conversation


def _title(text: str) -> str:
    """Return the first line of the first message, shortened at a word."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + " …"
