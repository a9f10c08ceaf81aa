"""A kill order's life, as a table."""

import itertools

import pytest
from django.db import DatabaseError, transaction

from governance.models import KillOrder
from governance.states import ORDER, OrderState
from tests.factories.governance import KillOrderFactory

ALLOWED = {("stopping", "quiet"), ("stopping", "lifted"), ("quiet", "lifted")}
WITH = {
    "stopping": {},
    "quiet": {"quiet_at": "2026-01-01T00:00Z"},
    "lifted": {"lifted_at": "2026-01-01T00:00Z", "lifted_by": "eva", "lift_reason": "over"},
}


def test_the_table_holds_every_state_and_no_other_step():
    assert {(source, target) for source, targets in ORDER.steps.items() for target in targets} == ALLOWED
    assert set(ORDER.steps) == set(ORDER.meaning) == set(OrderState)


@pytest.mark.django_db
@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(OrderState.values, 2)))
def test_the_database_refuses_every_step_that_is_not_in_the_table(source: str, target: str):
    order = KillOrderFactory(state=source, **WITH[source])
    change = KillOrder.objects.filter(pk=order.pk)
    if (source, target) in ALLOWED:
        assert change.update(state=target, **WITH[target]) == 1
    else:
        with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
            change.update(state=target, **WITH[target])
