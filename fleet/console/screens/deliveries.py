"""Messages on their way to a platform: how far each got, why one is not there, and what a person can do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conversations import policies, queries
from conversations.models import Conversation, Delivery, Message
from conversations.states import UNDELIVERED, Author, DeliveryKind, DeliveryState
from fleet.console.presenters import DeliveryView
from fleet.console.statuses import delivery_status
from identities.models import Person
from identities.permissions import Permission

_NO_RECEIPT = "The platform was called and gave no receipt: it may or may not have arrived."
_CAUTION = "It may have arrived already, so it is marked as possibly repeated."
_OFFERS = {
    DeliveryState.SUPPRESSED: "Send now",
    DeliveryState.FAILED: "Send again",
    DeliveryState.PARTIAL: "Send the rest",
    DeliveryState.UNKNOWN: "Send again",
}
_MOVING = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class OnTheirWay:
    """Deliveries by message: its own, and the notices sent after it that did not arrive and stand in no message."""

    of_message: Mapping[int, DeliveryView] = field(default_factory=dict)
    after_message: Mapping[int, tuple[DeliveryView, ...]] = field(default_factory=dict)


NOTHING_ON_ITS_WAY = OnTheirWay()


def delivery_view(row: Delivery, *, may_send: bool, watched: bool = True, told: bool = True) -> DeliveryView:
    """Return how far a delivery got. `watched`: the page looks again while it moves; `told`: a message shows its text."""
    lost = row.state in UNDELIVERED
    sent = row.state == DeliveryState.SENT
    return DeliveryView(
        id=row.pk,
        status=delivery_status(row.state),
        at=row.created_at,
        reason="" if sent else row.sentence or (_NO_RECEIPT if row.state == DeliveryState.UNKNOWN else ""),
        offer=_OFFERS[DeliveryState(row.state)] if lost and may_send else "",
        caution=_CAUTION if not sent and (row.doubtful or row.state == DeliveryState.UNKNOWN) else "",
        moving=watched and row.state in _MOVING,
        text="" if told else row.text,
    )


def may_send_again(row: Delivery, person: Person) -> bool:
    """Return whether this person could have the delivery sent again now."""
    return Permission.DELIVERY_SEND in person.permissions and policies.can_send_again(row)


def on_their_way(
    conversation: Conversation, messages: Sequence[Message], *, person: Person, before_message: int | None = None
) -> OnTheirWay:
    """Return the deliveries of these messages, which are a stretch of the conversation that ends before `before_message`."""
    if not messages:
        return NOTHING_ON_ITS_WAY
    of_turns = queries.deliveries_of_turns([message.turn_id for message in messages if message.turn_id])
    stray = queries.undelivered_notices(conversation, since=messages[0].created_at, before_message=before_message)
    own = _by_turn(messages, of_turns)
    own |= _by_text(messages, stray, taken=own)
    matched = {row.pk for row in own.values()}
    after = _by_time(messages, [row for row in stray if row.pk not in matched])
    may_send = _may_send([*own.values(), *stray], person)
    last = messages[-1].pk
    return OnTheirWay(
        {key: delivery_view(row, may_send=may_send, watched=key == last) for key, row in own.items()},
        {key: tuple(delivery_view(row, may_send=may_send, told=False) for row in rows) for key, rows in after.items()},
    )


def _may_send(rows: Sequence[Delivery], person: Person) -> bool:
    """Return whether what did not arrive could be sent; asked once, as all rows go to the same account."""
    lost = next((row for row in rows if row.state in UNDELIVERED), None)
    return lost is not None and may_send_again(lost, person)


def _by_turn(messages: Sequence[Message], rows: Sequence[Delivery]) -> dict[int, Delivery]:
    """Return by message the delivery of its turn: an answer is its turn's only one, notices are told apart by their words."""
    answers = {row.turn_id: row for row in rows if row.kind == DeliveryKind.ANSWER}
    notices = {(row.turn_id, row.text): row for row in rows if row.kind == DeliveryKind.NOTICE}
    found: dict[int, Delivery] = {}
    for message in messages:
        if message.author == Author.BOT:
            row = answers.get(message.turn_id)
        else:
            row = notices.get((message.turn_id, message.text)) if message.author == Author.SYSTEM else None
        if row and message.turn_id:
            found[message.pk] = row
    return found


def _by_text(
    messages: Sequence[Message], rows: Sequence[Delivery], *, taken: Mapping[int, Delivery]
) -> dict[int, Delivery]:
    """Return by message the delivery of a command's answer: both were written together, so the same words at the nearest time."""
    found: dict[int, Delivery] = {}
    for row in rows:
        same = [
            message
            for message in messages
            if message.author == Author.SYSTEM
            and message.text == row.text
            and message.pk not in taken
            and message.pk not in found
        ]
        if same:
            nearest = min(same, key=lambda message: abs(message.created_at - row.created_at))
            found[nearest.pk] = row
    return found


def _by_time(messages: Sequence[Message], rows: Sequence[Delivery]) -> dict[int, tuple[Delivery, ...]]:
    """Return by message what was sent after it and before the next one."""
    found: dict[int, list[Delivery]] = defaultdict(list)
    for row in rows:
        before = [message.pk for message in messages if message.created_at <= row.created_at]
        found[before[-1] if before else messages[0].pk].append(row)
    return {key: tuple(group) for key, group in found.items()}
