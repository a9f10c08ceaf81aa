"""A bot's working life, as a table."""

import itertools

import pytest
from django.db import DatabaseError, transaction

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import StateConflict
from identities import actions
from identities.models import Identity
from identities.states import IDENTITY, IdentityState
from tests.factories.identities import IdentityFactory

ALLOWED = {
    ("draft", "active"),
    ("draft", "retired"),
    ("active", "paused"),
    ("active", "retired"),
    ("paused", "active"),
    ("paused", "retired"),
}
PAIRS = list(itertools.product(IdentityState.values, repeat=2))
BY = Actor.system("test")


def test_the_table_holds_every_state_and_no_other_step():
    assert {(source, target) for source, targets in IDENTITY.steps.items() for target in targets} == ALLOWED
    assert set(IDENTITY.steps) == set(IDENTITY.meaning) == set(IdentityState)
    assert IDENTITY.final == ("retired",)


@pytest.mark.django_db
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_database_refuses_every_step_that_is_not_in_the_table(source: str, target: str):
    bot = IdentityFactory(state=source)
    if source == target or (source, target) in ALLOWED:
        Identity.objects.filter(pk=bot.pk).update(state=target)
        assert Identity.objects.get(pk=bot.pk).state == target
    else:
        with pytest.raises(DatabaseError), transaction.atomic():
            Identity.objects.filter(pk=bot.pk).update(state=target)


@pytest.mark.django_db
def test_two_people_pausing_the_same_bot_make_one_pause():
    bot = IdentityFactory()
    seen_before = Identity.objects.get(pk=bot.pk)

    actions.pause(identity=bot, by=BY)

    with pytest.raises(StateConflict, match="no longer active"):
        actions.pause(identity=seen_before, by=BY)
