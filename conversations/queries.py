"""Reads of conversations; no side effects."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery

from conversations.models import Conversation, Delivery, InboundMessage, Message, Turn
from conversations.states import TURN, UNDELIVERED, DeliveryKind, TurnState
from fleet.kernel import clock
from fleet.kernel.exceptions import NotFound
from governance.states import KillScope
from identities.models import Identity, Person
from identities.permissions import Permission

ACTIVE = (TurnState.ADMITTED, TurnState.RUNNING, TurnState.WAITING)
PAGE = 30
NOTICES = 100


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
    """Return conversations that have a waiting turn and a free lane, and whose turns need not wait for a login."""
    turns = Turn.objects.filter(conversation=OuterRef("conversation"))
    parked = turns.filter(state=TurnState.QUEUED, parked_until__gt=clock.now())
    waiting = Turn.objects.filter(~Exists(turns.filter(state__in=ACTIVE)), ~Exists(parked), state=TurnState.QUEUED)
    return list(waiting.values_list("conversation_id", flat=True).distinct()[:limit])


def conversations_of(person: Person, *, before: int | None = None, limit: int = PAGE) -> QuerySet[Conversation]:
    """Return conversations this person may read, newest id first, before the id `before`."""
    rows = Conversation.objects.select_related("identity", "person").order_by("-pk")
    if Permission.FLEET_VIEW not in person.permissions:
        rows = rows.filter(person=person)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return rows[:limit]


def latest_conversations(
    person: Person, *, before: tuple[dt.datetime, int] | None = None, limit: int = PAGE
) -> QuerySet[Conversation]:
    """Return conversations this person may read, the latest message first, before that (time, id)."""
    rows = Conversation.objects.select_related("identity").order_by("-last_message_at", "-pk")
    if Permission.FLEET_VIEW not in person.permissions:
        rows = rows.filter(person=person)
    if before is not None:
        moment, key = before
        # The first condition says it all to the index; the second only parts those of the same moment.
        rows = rows.filter(last_message_at__lte=moment).filter(Q(last_message_at__lt=moment) | Q(pk__lt=key))
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


def deliveries_of_turns(turn_ids: Collection[int]) -> list[Delivery]:
    """Return the answers and notices of these turns, with how far they got."""
    return list(Delivery.objects.filter(turn__in=turn_ids).exclude(kind=DeliveryKind.PROGRESS).order_by("pk"))


def undelivered_notices(
    conversation: Conversation, *, since: dt.datetime, before_message: int | None = None
) -> list[Delivery]:
    """Return notices of no turn (a command's answer, a refusal) that did not arrive here, in a stretch of the conversation."""
    rows = Delivery.objects.filter(
        account=conversation.account,
        chat_id=conversation.chat_id,
        thread_id=conversation.thread_id,
        turn=None,
        state__in=UNDELIVERED,
        created_at__gte=since,
    ).exclude(kind=DeliveryKind.PROGRESS)
    if before_message is not None:
        end = Message.objects.filter(pk=before_message).values("created_at")
        rows = rows.filter(created_at__lt=Subquery(end))
    return list(rows.order_by("created_at")[:NOTICES])


def get_delivery(delivery_id: int, *, person: Person) -> tuple[Delivery, Conversation]:
    """Return a delivery into a conversation that this person may read, and that conversation; NotFound otherwise."""
    row = Delivery.objects.select_related("turn__conversation").filter(pk=delivery_id).first()
    place = _place_of_delivery(row) if row else None
    if row is None or place is None or not may_read(place, person):
        raise NotFound("There is no such delivery.", next_step="Reload the conversation.")
    return row, place


def _place_of_delivery(row: Delivery) -> Conversation | None:
    if row.turn:
        return row.turn.conversation
    places = Conversation.objects.filter(account=row.account, chat_id=row.chat_id, thread_id=row.thread_id)
    return places.order_by("pk").first()


def open_turns(conversation: Conversation) -> list[Turn]:
    """Return the turns of a conversation that have not ended, in their order: the active one first, then the queue."""
    rows = Turn.objects.filter(conversation=conversation, state__in=TURN.live)
    return sorted(
        rows.select_related("execution", "identity"), key=lambda turn: (turn.state == TurnState.QUEUED, turn.pk)
    )


def parked_depth() -> int:
    """Return how many of the waiting turns wait for a login."""
    return Turn.objects.filter(state=TurnState.QUEUED, parked_until__gt=clock.now()).count()


def queued_ids(*, scope: str, scope_id: str) -> list[int]:
    """Return the waiting turns within a kill order's scope (fleet, identity or conversation)."""
    rows = Turn.objects.filter(_within(scope, scope_id), state=TurnState.QUEUED)
    return list(rows.order_by("pk").values_list("pk", flat=True))


def held_depths(scopes: Sequence[tuple[str, str]]) -> tuple[int, list[int]]:
    """Return how many turns wait in all, and for each kill order's (scope, id) how many of it an order alone can hold. One query.

    A parked turn waits for a login, whatever the orders are.
    """
    ready = ~Q(parked_until__gt=clock.now())
    counts = {f"of_{place}": Count("pk", filter=ready & _within(*scope)) for place, scope in enumerate(scopes)}
    found = Turn.objects.filter(state=TurnState.QUEUED).aggregate(waiting=Count("pk"), **counts)
    return found["waiting"], [found[name] for name in counts]


def _within(scope: str, scope_id: str) -> Q:
    if scope == KillScope.IDENTITY:
        return Q(identity__slug=scope_id)
    if scope == KillScope.CONVERSATION:
        return Q(conversation_id=int(scope_id))
    return Q() if scope == KillScope.FLEET else Q(pk__in=[])
