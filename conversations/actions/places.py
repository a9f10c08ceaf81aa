"""Where talk happens: the conversation a message belongs to, made on first use."""

from __future__ import annotations

from django.db import transaction

from conversations import events
from conversations.models import Conversation, InboundMessage
from conversations.queries import place_of
from conversations.states import BusyMode
from fleet.kernel import journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
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


@transaction.atomic
def set_busy_mode(*, conversation: Conversation, mode: str, by: Actor) -> bool:
    """Decide what becomes of messages that find the bot busy here, from the next one on; False when it is so already.

    Raises Invalid for a word that is no mode.
    """
    if mode not in BusyMode.values:
        raise Invalid(
            f"There is no busy mode “{mode[:40]}”.", next_step=f"Choose one of: {', '.join(BusyMode.values)}."
        )
    # Locked, so that of two who choose at once each is told, and journalled, what was there before their choice.
    before = (
        Conversation.objects.select_for_update(no_key=True).values_list("busy_mode", flat=True).get(pk=conversation.pk)
    )
    conversation.busy_mode = mode
    if before == mode:
        return False
    Conversation.objects.filter(pk=conversation.pk).update(busy_mode=mode)
    subject = ("conversation", conversation.pk)
    journal.record(events.BUSY_MODE_SET, by=by, subject=subject, **{"from": before, "to": mode})
    live.hint(f"conversation:{conversation.pk}")
    return True


def _title(text: str) -> str:
    """Return the first line of the first message, shortened at a word."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + " …"
