"""Remembering what a gate said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from governance import events
from governance.models import GateDecision
from governance.states import Gate, Outcome

_BY = Actor.system("gates")


@transaction.atomic(savepoint=False)
def record_decision(
    *,
    gate: Gate,
    outcome: Outcome,
    reason_code: str,
    sentence: str,
    origin_kind: str,
    origin_id: object,
    identity_slug: str,
    next_step: str = "",
    person_id: int | None = None,
    facts: Mapping[str, Any] | None = None,
    by: Actor = _BY,
) -> GateDecision:
    """Write one admission or refusal as a row that never changes, with its reason and the next step."""
    decision = GateDecision.objects.create(
        gate=Gate(gate),
        outcome=Outcome(outcome),
        reason_code=reason_code[:60],
        sentence=sentence,
        next_step=next_step,
        origin_kind=origin_kind,
        origin_id=str(origin_id)[:80],
        identity_slug=identity_slug[:60],
        person_id=person_id,
        facts=dict(facts or {}),
    )
    journal.record(
        events.GATE_PASSED if decision.outcome == Outcome.ALLOW else events.GATE_REFUSED,
        by=by,
        subject=("gate_decision", decision.pk),
        gate=str(decision.gate),
        outcome=str(decision.outcome),
        reason_code=decision.reason_code,
        origin=[origin_kind, decision.origin_id],
    )
    return decision
