"""One factory per model of governance."""

from __future__ import annotations

import factory
from factory.django import DjangoModelFactory

from governance.cedar import engine
from governance.models import GateDecision, KillEpoch, KillOrder, PolicyVersion, StopLine
from governance.states import Gate, KillMode, KillScope, Outcome


class KillEpochFactory(DjangoModelFactory[KillEpoch]):
    """The one row of the kill epoch."""

    class Meta:
        model = KillEpoch
        django_get_or_create = ("id",)

    id = 1


class KillOrderFactory(DjangoModelFactory[KillOrder]):
    """A stop of the whole fleet that is still looking for what is alive."""

    class Meta:
        model = KillOrder

    scope = KillScope.FLEET
    mode = KillMode.STOP
    reason = "a drill"
    epoch = factory.Sequence(lambda number: number + 1)
    ordered_by = "eva"


class StopLineFactory(DjangoModelFactory[StopLine]):
    """Something alive that an order has to see quiet."""

    class Meta:
        model = StopLine

    order = factory.SubFactory(KillOrderFactory)
    kind = "process"
    subject = factory.Sequence(str)


class GateDecisionFactory(DjangoModelFactory[GateDecision]):
    """A refusal at Gate 1."""

    class Meta:
        model = GateDecision

    gate = Gate.POLICY
    outcome = Outcome.REFUSE
    reason_code = "not_permitted"
    sentence = "No rule permits it."
    origin_kind = "turn"
    origin_id = factory.Sequence(str)
    identity_slug = "ada"


class PolicyVersionFactory(DjangoModelFactory[PolicyVersion]):
    """A wording of the policy, not active."""

    class Meta:
        model = PolicyVersion

    text = factory.Sequence(lambda number: f"{engine.DEFAULT_POLICY}\n// wording {number}\n")
    sha256 = factory.LazyAttribute(lambda version: PolicyVersion.hash_of(version.text))
    author = "test"
    reason = "a test"
