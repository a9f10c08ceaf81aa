"""When an execution moves, its turn moves with it, in the same transaction."""

from __future__ import annotations

from django.db.models import QuerySet

from conversations.actions import begin_turn, close_turn, goes_on_waiting, hand_on, join_running, wake
from conversations.models import Turn
from conversations.states import TurnState
from execution import events as execution_events
from fleet.kernel import queue
from fleet.kernel.events import Event, subscribe
from governance import events as governance_events


def _turn_of(event: Event, turns: QuerySet[Turn]) -> Turn | None:
    if event.details.get("origin_kind") != "turn":
        return None
    return turns.get(pk=int(event.details["origin_id"]))


@subscribe(execution_events.RELEASED)
def turn_begins(event: Event) -> None:
    """The spend gate opened: the turn is running."""
    turn = _turn_of(event, Turn.objects.only("state", "conversation"))
    if turn and turn.state == TurnState.ADMITTED:
        begin_turn(turn, by=event.by)


@subscribe(execution_events.OFFER_TAKEN)
def message_is_steered(event: Event) -> None:
    """The running turn has a message that waited."""
    turn = _turn_of(event, Turn.objects.all())
    if turn:
        join_running(event.details["uuid"], turn, by=event.by)


@subscribe(execution_events.OFFER_RETURNED)
def message_waits_on(event: Event) -> None:
    """The running turn did not take a message."""
    if event.details.get("origin_kind") == "turn":
        told = event.details
        goes_on_waiting(told["uuid"], ended=told["ended"], doubtful=told["doubtful"], by=event.by)


@subscribe(execution_events.FINISHED)
def turn_ends(event: Event) -> None:
    """The execution ended: hand the turn on when that may happen by itself, else close it with everything it owns."""
    turn = _turn_of(event, Turn.objects.select_related("identity", "session"))
    if turn and not hand_on(turn, event.row, by=event.by):
        close_turn(turn, event.row, by=event.by)


@subscribe(execution_events.BREAKER_CLOSED)
def parked_turns_wake(event: Event) -> None:
    """A login may be used again: what waited for it need not wait until the moment that was promised."""
    wake(event.details["provider"], by=event.by)


@subscribe(execution_events.WORKER_STARTED)
def parked_turns_are_looked_at(event: Event) -> None:
    """A worker began, perhaps with another key: what waited for the old one need not."""
    wake(by=event.by)


@subscribe(governance_events.KILL_ORDERED)
def lanes_fall_silent(event: Event) -> None:
    """A kill order was given: refuse what waits, hold answers. The sweep does it too when the hint is lost."""
    queue.enqueue("conversations.silence", order_id=int(event.subject_id))
