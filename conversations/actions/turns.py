"""The rest of a turn's life: it begins to run, it closes in one transaction with everything it owns, or it is stopped."""

from __future__ import annotations

from django.db import transaction

from conversations import events
from conversations.actions.outbox import deliver, notify
from conversations.actions.sessions import note_use
from conversations.actions.steering import withdraw_offers
from conversations.models import Conversation, Message, Turn
from conversations.states import TURN, Author, DeliveryKind, TurnState
from execution import actions as execution_actions
from execution.models import Execution
from execution.policies import sentence_of_stop
from execution.states import ExecutionState
from fleet.kernel import clock, live, queue
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import StateConflict
from fleet.kernel.transitions import move

_END_OF = {
    ExecutionState.SUCCEEDED: TurnState.REPLIED,
    ExecutionState.FAILED: TurnState.FAILED,
    ExecutionState.STOPPED: TurnState.STOPPED,
    ExecutionState.LOST: TurnState.INTERRUPTED,
}


def begin_turn(turn: Turn, *, by: Actor) -> Turn:
    """Mark a turn as running: its spend gate has opened. Called inside the release transaction."""
    move(turn, TURN, TurnState.RUNNING, by=by, event=events.TURN_RUNNING)
    live.hint(f"conversation:{turn.conversation_id}", turn=turn.pk, state=turn.state)
    return turn


def close_turn(turn: Turn, execution: Execution, *, by: Actor) -> Turn:
    """Close a turn with its execution: state, message, delivery, session and lane, in the execution's closing transaction."""
    state, sentence = _ending_of(execution)
    move(
        turn,
        TURN,
        state,
        by=by,
        event=events.TURN_CLOSED,
        details={"outcome": execution.outcome},
        sentence=sentence,
        ended_at=clock.db_now(),
    )
    if turn.session:
        failed = state in (TurnState.FAILED, TurnState.INTERRUPTED)
        note_use(turn.session, failed=failed, began=execution.released_at is not None)
    _say(turn, execution, by=by)
    live.hint(f"conversation:{turn.conversation_id}", turn=turn.pk, state=turn.state)
    live.hint("fleet", identity=turn.identity_id)
    if Turn.objects.filter(conversation_id=turn.conversation_id, state=TurnState.QUEUED).exists():
        queue.enqueue("conversations.advance", conversation_id=turn.conversation_id)
    return turn


def _ending_of(execution: Execution) -> tuple[TurnState, str]:
    """Return how the turn ends. Whoever asked to stop it gets that, though its execution failed before a worker heard of it."""
    if execution.state == ExecutionState.FAILED and execution.stop_requested_at:
        return TurnState.STOPPED, sentence_of_stop(execution.stop_reason)
    state = _END_OF[ExecutionState(execution.state)]
    return state, "" if state == TurnState.REPLIED else execution.sentence


def _say(turn: Turn, execution: Execution, *, by: Actor) -> None:
    """Tell the person how the turn ended: the answer, or a sentence, or both when it was cut short; before it, what else they must know."""
    for notice in execution.told:
        notify(turn, notice, by=by)
    if execution.answer.strip():
        Message.objects.create(
            conversation_id=turn.conversation_id,
            turn=turn,
            author=Author.BOT,
            name=turn.identity.name,
            text=execution.answer,
        )
        deliver(**turn.route, kind=DeliveryKind.ANSWER, text=execution.answer, turn=turn, by=by)
    if turn.state != TurnState.REPLIED:
        notify(turn, turn.sentence or "The turn ended without an answer.", by=by)


@transaction.atomic
def stop_turn(*, turn_id: int, by: Actor, reason: str) -> TurnState:
    """Stop one turn: a waiting one at once, an active one through its worker. Returns the state seen; stopping twice is harmless.

    Takes no lock on the turn: a worker that closes it holds the execution first and the turn second.
    """
    turn = Turn.objects.select_related("identity").get(pk=turn_id)
    _try_to_stop(turn, by=by, reason=reason)
    if turn.state == TurnState.QUEUED:  # its execution has just failed, and another one was to follow
        _try_to_stop(turn, by=by, reason=reason)
    return TurnState(turn.state)


def _try_to_stop(turn: Turn, *, by: Actor, reason: str) -> None:
    if turn.state == TurnState.QUEUED:
        withdraw_offers([turn], by=by)
    if turn.state == TurnState.QUEUED and not _stop_waiting(turn, by=by, reason=reason):
        turn.refresh_from_db(fields=["state", "execution"])  # it left the queue at this very moment
    if turn.execution_id and turn.state in TURN.live:
        _request_stop(turn.execution_id, by=by, reason=reason)
        turn.refresh_from_db(fields=["state", "execution"])


def _stop_waiting(turn: Turn, *, by: Actor, reason: str) -> bool:
    """Stop a turn in the queue; False when somebody was faster, whether to admit, refuse or stop it."""
    sentence = f"Stopped before it began: {reason}"
    try:
        move(
            turn,
            TURN,
            TurnState.STOPPED,
            by=by,
            event=events.TURN_CLOSED,
            details={"reason": reason},
            sentence=sentence,
            ended_at=clock.db_now(),
        )
    except StateConflict:
        return False
    Message.objects.create(conversation_id=turn.conversation_id, turn=turn, author=Author.SYSTEM, text=sentence)
    live.hint(f"conversation:{turn.conversation_id}", turn=turn.pk, state=turn.state)
    return True


def _request_stop(execution_id: int, *, by: Actor, reason: str) -> None:
    try:
        execution_actions.request_stop(execution_id=execution_id, reason=reason, by=by)
    except StateConflict:
        pass  # it has just ended by itself


def interrupt_turn(active: Turn, *, by: Actor) -> None:
    """Stop the turn that runs because its own person has said something newer; what waits stays."""
    if active.execution_id is not None:
        _request_stop(active.execution_id, by=by, reason="a newer message takes its place")


def stop_conversation(conversation: Conversation, *, by: Actor, reason: str) -> tuple[int, bool]:
    """Stop everything in a conversation, what waits first; return how many waiting turns and whether an active one was stopped."""
    # Read at once: one that is set back to wait between two readings would be in neither.
    open_turns = list(Turn.objects.filter(conversation=conversation, state__in=TURN.live).order_by("-pk"))
    waiting = [turn for turn in open_turns if turn.state == TurnState.QUEUED]
    active = next((turn for turn in open_turns if turn.state != TurnState.QUEUED), None)
    withdraw_offers(waiting, by=by)  # all of them in their order, as a worker decides them
    stopped = sum(stop_turn(turn_id=turn.pk, by=by, reason=reason) == TurnState.STOPPED for turn in waiting)
    if active:
        stop_turn(turn_id=active.pk, by=by, reason=reason)
    return stopped, active is not None
