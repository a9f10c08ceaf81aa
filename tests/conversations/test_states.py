"""The tables of steps, as the database keeps them."""

import itertools

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from conversations.models import Delivery, Turn
from conversations.states import DELIVERY, INBOUND, SESSION, TURN
from tests.conversations.scenes import say

MACHINES = [TURN, DELIVERY, INBOUND, SESSION]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.noun)
def test_every_state_is_explained_and_can_be_reached(machine):
    assert set(machine.meaning) == set(machine.steps)
    reached, frontier = {machine.initial}, [machine.initial]
    while frontier:
        for target in machine.steps[frontier.pop()]:
            if target not in reached:
                reached.add(target)
                frontier.append(target)
    assert reached == set(machine.steps)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("source", "target"), [pair for pair in itertools.permutations(DELIVERY.steps, 2) if not DELIVERY.allows(*pair)]
)
def test_the_database_refuses_a_step_of_a_delivery_that_the_table_does_not_have(source, target):
    row = Delivery.objects.create(account="telegram:ada", chat_id="1", kind="notice", text="x", state=source)
    with pytest.raises(DatabaseError), transaction.atomic():
        Delivery.objects.filter(pk=row.pk).update(state=target)


@pytest.mark.parametrize("target", ["running", "waiting", "replied", "failed"])
def test_the_database_refuses_to_run_a_turn_that_was_not_admitted(eva, target):
    turn = Turn.objects.get(pk=say("Hello").turn_id)
    twin = Turn.objects.create(conversation=turn.conversation, identity=turn.identity, route=turn.route)
    with pytest.raises(DatabaseError), transaction.atomic():
        Turn.objects.filter(pk=twin.pk).update(state=target, ended_at=timezone.now())
