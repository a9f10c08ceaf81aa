"""Lanes: one active turn per conversation. A message starts a turn, joins the one that has not opened its gate, or waits."""

from __future__ import annotations

from django.db import transaction

from conversations import events
from conversations.actions.admission import admit
from conversations.actions.outbox import deliver
from conversations.actions.refusals import refuse_turn
from conversations.actions.steering import offer_to_running, tell_it_waits, withdraw_offers
from conversations.actions.turns import interrupt_turn
from conversations.models import Conversation, InboundMessage, Message, Turn
from conversations.policies import check_queue, is_parked
from conversations.states import INBOUND, Author, BusyMode, DeliveryKind, InboundState, TurnState
from execution import actions as execution_actions
from fleet.kernel import clock, journal, live, queue
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from fleet.kernel.transitions import move
from governance.states import Gate
from identities.models import Identity, Person

ACTIVE = (TurnState.ADMITTED, TurnState.RUNNING, TurnState.WAITING)
_BY = Actor.system("intake")
_COLLECTS = (BusyMode.COLLECT, BusyMode.INTERRUPT)
_INTERRUPTS = "I stop what I was working on and take this up next."


def take_into_lane(row: InboundMessage, identity: Identity, person: Person, conversation: Conversation) -> None:
    """Put a message into the lane of its conversation, whose row the caller has locked."""
    open_turns = list(
        Turn.objects.filter(conversation=conversation, state__in=(TurnState.QUEUED, *ACTIVE)).order_by("pk")
    )
    active = next((turn for turn in open_turns if turn.state in ACTIVE), None)
    queued = [turn for turn in open_turns if turn.state == TurnState.QUEUED]
    if active and not queued and _joins(active, row, person):
        return _take(row, active, conversation, events.TURN_JOINED)
    if not open_turns:
        turn = _new_turn(row, identity, person, conversation)
        _take(row, turn, conversation, events.TURN_QUEUED)
        admit(turn, texts=[row])
        return None
    return _wait(row, identity, person, conversation, active, queued)


def _joins(active: Turn, row: InboundMessage, person: Person) -> bool:
    """Return whether the message became part of the active turn: same person, and its spend gate is still closed."""
    if active.person_id != person.pk or active.execution_id is None:
        return False
    return execution_actions.join(execution_id=active.execution_id, text={"uuid": str(row.uuid), "text": row.text})


def _wait(
    row: InboundMessage,
    identity: Identity,
    person: Person,
    conversation: Conversation,
    active: Turn | None,
    queued: list[Turn],
) -> None:
    waiting = InboundMessage.objects.filter(turn__in=queued).count() if queued else 0
    check_queue(waiting)
    mode = conversation.busy_mode
    collects = mode in _COLLECTS and queued and queued[-1].person_id == person.pk
    if collects:
        _take(row, queued[-1], conversation, events.TURN_JOINED)
    else:
        turn = _new_turn(row, identity, person, conversation)
        _take(row, turn, conversation, events.TURN_QUEUED)
        _tell(row, turn, person, mode, active, queued)
    if mode == BusyMode.INTERRUPT and active and active.person_id == person.pk:
        interrupt_turn(active, by=Actor.person(person))
    if not collects:
        # The active turn may have closed while we decided; then nobody else would start this one before the sweep.
        queue.enqueue("conversations.advance", conversation_id=conversation.pk)


def _tell(row: InboundMessage, turn: Turn, person: Person, mode: str, active: Turn | None, queued: list[Turn]) -> None:
    """Say what becomes of a message that finds the bot busy; one that is offered to the running turn is told when that is decided."""
    if mode == BusyMode.STEER and offer_to_running(row, person, active, queued):
        return
    if mode == BusyMode.INTERRUPT and active and active.person_id == person.pk:
        deliver(**turn.route, kind=DeliveryKind.PROGRESS, text=_INTERRUPTS, turn=turn, by=_BY)
        return
    tell_it_waits(turn, position=len(queued) + 1, by=_BY)


def _new_turn(row: InboundMessage, identity: Identity, person: Person, conversation: Conversation) -> Turn:
    return Turn.objects.create(
        conversation=conversation,
        identity=identity,
        person=person,
        origin=row.kind,
        route={
            "account": row.account,
            "chat_id": row.chat_id,
            "thread_id": row.thread_id,
            "reply_to": row.message_id,
        },
    )


def _take(row: InboundMessage, turn: Turn, conversation: Conversation, event: str) -> None:
    """Make the message part of the turn and visible in the conversation."""
    move(
        row,
        INBOUND,
        InboundState.TAKEN,
        by=_BY,
        event=event,
        details={"turn": turn.pk},
        turn=turn,
        conversation=conversation,
    )
    Message.objects.create(
        conversation=conversation, turn=turn, author=Author.PERSON, name=row.sender_name, text=row.text
    )
    Conversation.objects.filter(pk=conversation.pk).update(last_message_at=clock.db_now())
    live.hint(f"conversation:{conversation.pk}", turn=turn.pk, state=turn.state)


@transaction.atomic
def advance(conversation_id: int) -> Turn | None:
    """Start the next queued turn of a conversation whose lane is free; return it, or None when there is nothing to do."""
    conversation = Conversation.objects.select_for_update(no_key=True).get(pk=conversation_id)
    turns = Turn.objects.filter(conversation=conversation)
    if turns.filter(state__in=ACTIVE).exists():
        return None
    turn = turns.filter(state=TurnState.QUEUED).select_related("identity", "conversation").order_by("pk").first()
    if turn is None or is_parked(turn):
        return None
    admit(turn, texts=list(turn.inbound.order_by("pk")))
    return turn


@transaction.atomic
def refuse_queued(turn: Turn, refusal: Refused, *, by: Actor) -> bool:
    """Refuse one waiting turn, as the kill switch does; return False when it is no longer waiting."""
    withdraw_offers([turn], by=by)
    locked = Turn.objects.select_for_update().filter(pk=turn.pk, state=TurnState.QUEUED).first()
    if locked is None:
        return False
    refuse_turn(locked, refusal, gate=Gate.KILL)
    journal.record("conversations.queue.silenced", by=by, subject=("turn", turn.pk))
    return True
