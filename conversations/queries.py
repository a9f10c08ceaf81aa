"""Reads of conversations; no side effects."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, QuerySet

from conversations.models import Conversation, InboundMessage, Message, Turn
from conversations.states import TURN, TurnState
from fleet.kernel.exceptions import NotFound
from governance.states import KillScope
from identities.models import Identity, Person
from identities.permissions import Permission

ACTIVE = (TurnState.ADMITTED, TurnState.RUNNING, TurnState.WAITING)
PAGE = 30


def place_of(row: InboundMessage, identity: Identity) -> dict[str, object]:
    """Return the fields that identify the conversation a message belongs to."""
    return {
        "account": row.account,
        "chat_id": row.chat_id,
        "thread_id": row.thread_id,
        "identity": identity,
        "kind": row.kind,
    }


def lane_is_busy(row: InboundMessage, identity: Identity) -> bool:
    """Return whether something runs or waits where this message was sent."""
    places = Conversation.objects.filter(**place_of(row, identity))
    return Turn.objects.filter(conversation__in=places, state__in=(TurnState.QUEUED, *ACTIVE)).exists()


def conversations_to_advance(limit: int) -> list[int]:
    """Return conversations that have a waiting turn and a free lane."""
    active = Turn.objects.filter(conversation=OuterRef("conversation"), state__in=ACTIVE)
    waiting = Turn.objects.filter(~Exists(active), state=TurnState.QUEUED)
    return list(waiting.values_list("conversation_id", flat=True).distinct()[:limit])


def conversations_of(person: Person, *, before: int | None = None, limit: int = PAGE) -> QuerySet[Conversation]:
    """Return conversations this person may read, newest id first, before the id `before`."""
    rows = Conversation.objects.select_related("identity", "person").order_by("-pk")
    if Permission.FLEET_VIEW not in person.permissions:
        rows = rows.filter(person=person)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return rows[:limit]


def get_conversation(conversation_id: int, *, person: Person) -> Conversation:
    """Return a conversation this person may read; NotFound otherwise."""
    row = Conversation.objects.select_related("identity", "person").filter(pk=conversation_id).first()
    if row is None or not may_read(row, person):
        raise NotFound("There is no such conversation.", next_step="Choose one from the list.")
    return row


def may_read(conversation: Conversation, person: Person) -> bool:
    """Return whether this person may read it: their own, or anybody's with the right to see the fleet."""
    return conversation.person_id == person.pk or Permission.FLEET_VIEW in person.permissions


def get_turn(turn_id: int, *, person: Person) -> Turn:
    """Return a turn this person may read; NotFound otherwise."""
    row = Turn.objects.select_related("conversation", "identity", "execution", "person").filter(pk=turn_id).first()
    if row is None or not may_read(row.conversation, person):
        raise NotFound("There is no such turn.", next_step="Check the number.")
    return row


def transcript(
    conversation: Conversation, *, before: int | None = None, after: int | None = None, limit: int = PAGE
) -> list[Message]:
    """Return messages oldest first: the last `limit` before the id `before`, or all after the id `after` up to `limit`."""
    rows = conversation.messages.select_related("turn__execution")
    if after is not None:
        return list(rows.filter(pk__gt=after).order_by("pk")[:limit])
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return list(reversed(rows.order_by("-pk")[:limit]))


def open_turns(conversation: Conversation) -> list[Turn]:
    """Return the turns of a conversation that have not ended, in their order: the active one first, then the queue."""
    rows = Turn.objects.filter(conversation=conversation, state__in=TURN.live)
    return sorted(
        rows.select_related("execution", "identity"), key=lambda turn: (turn.state == TurnState.QUEUED, turn.pk)
    )


def queue_depth() -> int:
    """Return how many turns wait for their lane in the whole fleet."""
    return Turn.objects.filter(state=TurnState.QUEUED).count()


def queued_ids(*, scope: str, scope_id: str) -> list[int]:
    """Return the waiting turns within a kill order's scope (fleet, identity or conversation)."""
    rows = Turn.objects.filter(state=TurnState.QUEUED)
    if scope == KillScope.IDENTITY:
        rows = rows.filter(identity__slug=scope_id)
    elif scope == KillScope.CONVERSATION:
        rows = rows.filter(conversation_id=int(scope_id))
    elif scope != KillScope.FLEET:
        return []
    return list(rows.order_by("pk").values_list("pk", flat=True))
