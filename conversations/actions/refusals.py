"""Saying no so that it can be understood: a reason on the row, a gate decision, and a polite delivery."""

from __future__ import annotations

from conversations import events
from conversations.actions.outbox import deliver, notify
from conversations.models import InboundMessage, Turn
from conversations.states import INBOUND, TURN, DeliveryKind, InboundState, TurnState
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from fleet.kernel.transitions import move
from governance import actions as governance_actions
from governance.states import Gate, Outcome

_INTAKE = Actor.system("intake")
_ADMISSION = Actor.system("admission")


def refuse(row: InboundMessage, refusal: Refused, *, gate: Gate, person_id: int | None = None) -> None:
    """Close the inbox row as refused. Must be called inside a transaction."""
    move(
        row,
        INBOUND,
        InboundState.REFUSED,
        by=_INTAKE,
        event=events.REFUSED,
        details={"code": refusal.code},
        refusal=refusal.as_dict(),
        conversation_id=row.conversation_id,
    )
    _decide(refusal, gate, ("inbound", row.pk), row.identity_slug, person_id)
    deliver(
        account=row.account,
        chat_id=row.chat_id,
        thread_id=row.thread_id,
        reply_to=row.message_id,
        kind=DeliveryKind.NOTICE,
        text=refusal.sentence,
        inbound=row,
        by=_INTAKE,
    )


def refuse_turn(turn: Turn, refusal: Refused, *, gate: Gate) -> None:
    """Close a queued turn as refused. Must be called inside a transaction."""
    move(
        turn,
        TURN,
        TurnState.REFUSED,
        by=_ADMISSION,
        event=events.TURN_REFUSED,
        details={"code": refusal.code},
        sentence=refusal.sentence,
        next_step=refusal.next_step,
        ended_at=clock.db_now(),
    )
    _decide(refusal, gate, ("turn", turn.pk), turn.identity.slug, turn.person_id)
    notify(turn, refusal.sentence, by=_ADMISSION)


def _decide(refusal: Refused, gate: Gate, origin: tuple[str, int], slug: str, person_id: int | None) -> None:
    governance_actions.record_decision(
        gate=gate,
        outcome=Outcome.REFUSE,
        reason_code=refusal.code,
        sentence=refusal.sentence,
        next_step=refusal.next_step,
        origin_kind=origin[0],
        origin_id=str(origin[1]),
        identity_slug=slug,
        person_id=person_id,
    )
