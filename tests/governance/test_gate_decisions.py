"""Gate decisions: each admission and refusal is a row with its reason, and stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection

from fleet.kernel.models import JournalEntry
from governance import actions, queries
from governance.models import GateDecision
from governance.states import Gate, Outcome
from tests.factories.governance import GateDecisionFactory

pytestmark = pytest.mark.django_db


def decide(**fields: Any) -> GateDecision:
    """A refusal for want of money."""
    return actions.record_decision(
        **{
            "gate": Gate.BUDGET,
            "outcome": Outcome.REFUSE,
            "reason_code": "spent",
            "sentence": "The day's budget is spent.",
            "next_step": "Ask eva to raise it.",
            "origin_kind": "turn",
            "origin_id": 12,
            "identity_slug": "ada",
            "person_id": 7,
            "facts": {"headroom_nano_usd": 0},
            **fields,
        }
    )


def test_a_decision_keeps_who_what_why_and_what_next():
    decide()

    row = GateDecision.objects.get()
    assert (row.gate, row.outcome, row.reason_code) == ("budget", "refuse", "spent")
    assert (row.sentence, row.next_step) == ("The day's budget is spent.", "Ask eva to raise it.")
    assert (row.origin_kind, row.origin_id, row.identity_slug, row.person_id) == ("turn", "12", "ada", 7)
    assert row.facts == {"headroom_nano_usd": 0}


@pytest.mark.parametrize(
    ("outcome", "event"), [("refuse", "governance.gate.refused"), ("allow", "governance.gate.passed")]
)
def test_a_decision_is_journalled(outcome: str, event: str):
    decide(outcome=Outcome(outcome))
    assert JournalEntry.objects.get().event == event


def test_too_long_names_from_outside_are_cut_and_do_not_lose_the_decision():
    row = decide(identity_slug="x" * 500, reason_code="y" * 500, origin_id="z" * 500)
    assert (len(row.identity_slug), len(row.reason_code), len(row.origin_id)) == (60, 60, 80)


@pytest.mark.parametrize("change", ["update", "delete", "truncate"])
def test_the_database_refuses_every_change(change: str):
    decide()
    attempts = {
        "update": lambda: GateDecision.objects.update(outcome="allow"),
        "delete": lambda: GateDecision.objects.all()._raw_delete("default"),
        "truncate": lambda: connection.cursor().execute("TRUNCATE governance_gatedecision"),
    }
    with pytest.raises(DatabaseError, match=r"(?i)append-only|cannot update or delete"):
        attempts[change]()


def test_a_refusal_without_a_sentence_is_not_stored():
    with pytest.raises(IntegrityError, match="gate_decision_explains_itself"):
        decide(sentence="")


def test_decisions_are_found_by_origin_and_by_bot_the_newest_first_and_paged():
    one, two, three = (GateDecisionFactory(origin_id="12") for _ in range(3))
    other = GateDecisionFactory(identity_slug="bob")

    assert list(queries.decisions(origin=("turn", 12))) == [three, two, one]
    assert list(queries.decisions(origin=("turn", 12), before=two.pk)) == [one]
    assert list(queries.decisions(identity_slug="bob")) == [other]
    assert list(queries.decisions(limit=1)) == [other]
