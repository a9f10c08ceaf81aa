"""How a state moves: by its table, for exactly one caller, with a journal row."""

from __future__ import annotations

import itertools
import threading

import pytest
from django.db import connection
from django.db.models import F

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import StateConflict
from fleet.kernel.models import JournalEntry
from fleet.kernel.transitions import Machine, move
from identities.models import Identity
from identities.states import IDENTITY, IdentityState
from tests.factories.identities import IdentityFactory

EVA = Actor("person", "7", "eva")
DOOR = Machine(
    noun="door",
    initial="shut",
    steps={"shut": ("open", "locked"), "open": ("shut",), "locked": ("broken",), "broken": ()},
    meaning={"shut": "", "open": "", "locked": "", "broken": ""},
)


class TestMachine:
    @pytest.mark.parametrize(("source", "target"), list(itertools.product(DOOR.steps, repeat=2)))
    def test_it_allows_exactly_the_steps_of_its_table(self, source: str, target: str):
        steps = {("shut", "open"), ("shut", "locked"), ("open", "shut"), ("locked", "broken")}
        assert DOOR.allows(source, target) == ((source, target) in steps)

    def test_an_unknown_state_leads_nowhere(self):
        assert not DOOR.allows("ajar", "open")

    def test_a_state_is_final_when_nothing_leaves_it(self):
        assert DOOR.final == ("broken",)
        assert DOOR.live == ("shut", "open", "locked")


@pytest.mark.django_db
class TestMove:
    def test_it_moves_the_row_and_writes_who_moved_it(self):
        bot = IdentityFactory()

        move(
            bot,
            IDENTITY,
            IdentityState.PAUSED,
            by=EVA,
            event="tests.bot.paused",
            details={"reason": "lunch"},
            title="Away",
        )

        stored = Identity.objects.get(pk=bot.pk)
        assert (stored.state, stored.title, bot.state, bot.title) == ("paused", "Away", "paused", "Away")
        entry = JournalEntry.objects.get()
        assert (entry.event, entry.actor_name, entry.subject_kind, entry.subject_id) == (
            "tests.bot.paused",
            "eva",
            "identity",
            str(bot.pk),
        )
        assert entry.details == {"from": "active", "to": "paused", "reason": "lunch"}

    def test_a_step_that_is_not_in_the_table_is_refused_with_nothing_written(self):
        bot = IdentityFactory(state=IdentityState.DRAFT)

        with pytest.raises(StateConflict, match="This identity is draft and cannot become paused"):
            move(bot, IDENTITY, IdentityState.PAUSED, by=EVA, event="tests.bot.paused")

        assert not JournalEntry.objects.exists()

    def test_a_row_that_moved_on_since_it_was_read_is_a_conflict(self):
        bot = IdentityFactory()
        Identity.objects.filter(pk=bot.pk).update(state=IdentityState.PAUSED)

        with pytest.raises(StateConflict, match="no longer active"):
            move(bot, IDENTITY, IdentityState.RETIRED, by=EVA, event="tests.bot.retired")

        assert Identity.objects.get(pk=bot.pk).state == "paused"
        assert not JournalEntry.objects.exists()

    def test_a_guard_that_does_not_hold_is_a_conflict(self):
        bot = IdentityFactory(concurrency=4)

        with pytest.raises(StateConflict):
            move(bot, IDENTITY, IdentityState.PAUSED, by=EVA, event="tests.bot.paused", guard={"concurrency": 5})

        assert Identity.objects.get(pk=bot.pk).state == "active"

    def test_expressions_are_computed_by_the_database(self):
        bot = IdentityFactory(max_turns=30)

        move(bot, IDENTITY, IdentityState.PAUSED, by=EVA, event="tests.bot.paused", max_turns=F("max_turns") + 1)

        assert Identity.objects.get(pk=bot.pk).max_turns == 31


@pytest.mark.django_db(transaction=True)
def test_of_many_who_move_the_same_row_exactly_one_succeeds():
    bot = IdentityFactory()
    ready = threading.Barrier(8)
    results: list[str] = []

    def race() -> None:
        try:
            mine = Identity.objects.get(pk=bot.pk)
            ready.wait(30)
            move(mine, IDENTITY, IdentityState.PAUSED, by=EVA, event="tests.bot.paused")
            results.append("moved")
        except StateConflict:
            results.append("conflict")
        finally:
            connection.close()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(results) == ["conflict"] * 7 + ["moved"]
    assert JournalEntry.objects.count() == 1
