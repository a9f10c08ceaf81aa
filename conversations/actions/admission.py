"""Admission: the only door to an execution, for chat and for everything that comes later.

kill epoch → identity → session → budget → Gate 1 → execution queued. All of it happens in the caller's transaction; a refusal undoes
what was done so far, and leaves a gate decision with its reason, a closed turn and a polite delivery.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from django.db import transaction

from budgets import actions as budget_actions
from conversations import events
from conversations.actions.parking import Parked, choose, park, tell_who_answers
from conversations.actions.refusals import refuse_turn
from conversations.actions.sessions import ground_of, session_for
from conversations.models import InboundMessage, Session, Turn
from conversations.states import TURN, TurnState
from execution import actions as execution_actions
from execution.models import Execution
from fleet.kernel import clock, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from fleet.kernel.transitions import move
from governance import actions as governance_actions
from governance import policies as governance_policies
from governance.policies import GateRequest
from governance.states import Gate, Outcome
from identities import policies as identity_policies
from identities import queries as identity_queries
from identities.models import Identity

_BY = Actor.system("admission")


class Stopped(Exception):
    """Carries a refusal and the gate that spoke it out of the savepoint."""

    def __init__(self, refusal: Refused, gate: Gate) -> None:
        super().__init__(str(refusal))
        self.refusal, self.gate = refusal, gate


def admit(turn: Turn, *, texts: Iterable[InboundMessage]) -> bool:
    """Admit a queued turn and queue its execution, refuse it, or park it until a login may be used; return whether it was admitted.

    `texts` are the messages it answers, in order. Must be called inside a transaction that holds the conversation's row.
    """
    try:
        with transaction.atomic():
            _admit(turn, [{"uuid": _key(turn, row), "text": row.text} for row in texts])
    except Stopped as stop:
        turn.state = TurnState.QUEUED  # the savepoint is undone; so is what we remember of it
        refuse_turn(turn, stop.refusal, gate=stop.gate)
    except Parked as parked:
        turn.state = TurnState.QUEUED
        park(turn, parked.nobody)
    live.hint(f"conversation:{turn.conversation_id}", turn=turn.pk, state=turn.state)
    live.hint("fleet", identity=turn.identity_id)
    return bool(turn.state == TurnState.ADMITTED)


def _admit(turn: Turn, texts: list[dict[str, str]]) -> None:
    identity = turn.identity
    epoch = _ask(
        Gate.KILL,
        governance_policies.check_not_killed,
        identity_slug=identity.slug,
        conversation_id=turn.conversation_id,
    )
    _ask(Gate.IDENTITY, identity_policies.check_takes_messages, identity)
    current, shut = ground_of(turn)
    choice = _ask(Gate.IDENTITY, choose, turn, shut)
    compiled = identity_queries.compiled(identity)
    explained = tell_who_answers(turn, choice)
    session = session_for(
        turn, current, provider=choice.provider, model=choice.model, compiled=compiled, explained=explained
    )
    reservation = _ask(
        Gate.BUDGET,
        budget_actions.reserve,
        attempt=f"turn:{turn.pk}:{turn.tries}" if turn.tries else f"turn:{turn.pk}",
        scopes=_scopes(turn, identity),
        model=choice.model,
        by=_BY,
    )
    _pass_gate_1(turn, identity)
    execution = execution_actions.queue(
        origin_kind="turn",
        origin_id=str(turn.pk),
        conversation_id=turn.conversation_id,
        identity=identity,
        provider=choice.provider,
        model=choice.model,
        login=choice.login,
        is_probe=choice.tries is not None,
        texts=_with_seed(session, texts),
        session_id=session.provider_session_id,
        session_turns=session.turns,
        reservation_id=reservation.pk,
        kill_epoch=epoch,
        versions={**compiled.versions, "workspace": compiled.digest},
        by=_BY,
    )
    _enter_lane(turn, session, execution)


def _key(turn: Turn, row: InboundMessage) -> str:
    """Return the provider's idempotency key of a message: another one for every try, or a session would take it for a repetition."""
    return str(uuid.uuid5(row.uuid, str(turn.tries)) if turn.tries else row.uuid)


def _ask(gate: Gate, question: Any, *arguments: Any, **facts: Any) -> Any:
    """Ask one gate; its refusal ends the admission under that gate's name."""
    try:
        return question(*arguments, **facts)
    except Refused as refusal:
        raise Stopped(refusal, gate) from refusal


def _scopes(turn: Turn, identity: Identity) -> dict[str, str]:
    scopes = {"fleet": "*", "identity": identity.slug}
    if turn.person_id is not None:
        scopes["person"] = str(turn.person_id)
    return scopes


def _pass_gate_1(turn: Turn, identity: Identity) -> None:
    verdict = governance_policies.judge(
        GateRequest.admit(person=turn.person, identity=identity, origin=turn.origin, account=turn.route["account"])
    )
    if verdict.outcome != Outcome.ALLOW:
        refusal = Refused(verdict.sentence, code=verdict.reason_code, next_step=verdict.next_step)
        raise Stopped(refusal, Gate.POLICY)
    governance_actions.record_decision(
        gate=Gate.ADMITTED,
        outcome=Outcome.ALLOW,
        reason_code=verdict.reason_code,
        sentence="Admitted.",
        origin_kind="turn",
        origin_id=str(turn.pk),
        identity_slug=identity.slug,
        person_id=turn.person_id,
        facts={"policy_version": verdict.policy_version},
    )


def _with_seed(session: Session, texts: list[dict[str, str]]) -> list[dict[str, str]]:
    """Put the summary of the parent session before the first question of a new one."""
    if session.turns == 0 and session.seed:
        return [{"uuid": session.provider_session_id, "text": session.seed}, *texts]
    return texts


def _enter_lane(turn: Turn, session: Session, execution: Execution) -> None:
    move(
        turn,
        TURN,
        TurnState.ADMITTED,
        by=_BY,
        event=events.TURN_ADMITTED,
        details={"execution": execution.pk, "session": session.pk},
        execution=execution,
        session=session,
        parked_until=None,
        admitted_at=clock.db_now(),
    )
