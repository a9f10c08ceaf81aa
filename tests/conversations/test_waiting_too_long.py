"""A turn whose execution waited until its reservation went back is admitted anew, and its person never hears of it."""

from __future__ import annotations

import datetime as dt

import pytest

from budgets import actions as budget_actions
from budgets.models import Reservation
from budgets.states import Metric
from conversations import actions
from conversations.models import Delivery, Turn
from conversations.states import TurnState
from execution import actions as execution_actions
from execution.models import Breaker, Execution
from execution.states import BreakerState, ExecutionState
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from identities.models import Identity, Person
from tests.conversations import scenes
from tests.execution.logins import CHAIN, two_logins
from tests.factories.budgets import BudgetFactory

__all__ = ["two_logins"]
pytestmark = pytest.mark.django_db(transaction=True)


def weekend(turn: Turn) -> Turn:
    """Everything is down, and the budgets' sweep is the first to come back, twice."""
    turn.refresh_from_db()
    hold = Reservation.objects.filter(pk=turn.execution.reservation_id)
    hold.update(lease_until=clock.db_now(-dt.timedelta(days=2)))
    budget_actions.sweep_reservations()
    hold.update(uncertain_until=clock.db_now(-dt.timedelta(days=1)))
    budget_actions.sweep_reservations()
    assert hold.get().state == "released"
    execution_actions.sweep()
    turn.refresh_from_db()
    return turn


def next_of(turn: Turn) -> Turn:
    """What the hint after the commit, or the sweep, does."""
    actions.sweep()
    turn.refresh_from_db()
    return turn


def told() -> list[str]:
    """What the bot has said, without progress."""
    return list(Delivery.objects.exclude(kind="progress").order_by("pk").values_list("text", flat=True))


def executions(turn: Turn) -> list[Execution]:
    return list(Execution.objects.filter(origin_kind="turn", origin_id=str(turn.pk)).order_by("pk"))


def test_it_is_admitted_anew_with_a_hold_of_its_own_and_answered(eva: Person) -> None:
    turn = weekend(scenes.turn_of(scenes.say("Hello")))
    assert (turn.state, turn.execution, turn.tries, turn.parked_until) == (TurnState.QUEUED, None, 1, None)
    assert next_of(turn).state == TurnState.ADMITTED
    first, second = executions(turn)
    assert turn.execution == second and second.reservation_id != first.reservation_id
    assert Reservation.objects.get(pk=second.reservation_id).state == "held"
    assert scenes.answer(turn).state == TurnState.REPLIED
    assert told() == ["Good day."]


def test_the_journal_says_why(eva: Person) -> None:
    turn = weekend(scenes.turn_of(scenes.say("Hello")))
    entry = JournalEntry.objects.get(event="conversations.turn.set_back", subject_id=str(turn.pk))
    assert (entry.details["cause"], entry.actor_name) == ("hold_ended", "sweep")


def test_the_message_has_another_key_and_what_joined_it_comes_along(eva: Person) -> None:
    turn = scenes.turn_of(scenes.say("Hello"))
    scenes.say("And now?")
    next_of(weekend(turn))
    first, second = (execution.prompt for execution in executions(turn))
    assert [text["text"] for text in second] == [text["text"] for text in first] == ["Hello", "And now?"]
    assert {text["uuid"] for text in first}.isdisjoint(text["uuid"] for text in second)


def test_todays_budgets_decide_and_say_so_themselves(eva: Person) -> None:
    turn = weekend(scenes.turn_of(scenes.say("Hello")))
    BudgetFactory(name="One at a time", metric=Metric.RUNS, limit_amount=1)
    scenes.say("Good morning", chat_id="502", thread_id="")
    assert next_of(turn).state == TurnState.REFUSED
    (said,) = told()
    assert "One at a time" in said and "stopped here" not in said
    assert Reservation.objects.filter(state__in=("held", "uncertain")).count() == 1


def test_an_order_that_was_given_meanwhile_is_obeyed(eva: Person, ada: Identity) -> None:
    turn = weekend(scenes.turn_of(scenes.say("Hello")))
    governance_actions.stop(
        scope=KillScope.IDENTITY, scope_id=ada.slug, mode=KillMode.STOP, reason="fire drill", by=Actor.system("test")
    )
    assert next_of(turn).state == TurnState.REFUSED
    assert len(executions(turn)) == 1


def test_its_provider_is_not_taken_for_one_that_failed(eva: Person, ada: Identity, two_logins: None) -> None:
    Identity.objects.filter(pk=ada.pk).update(provider_chain=CHAIN)
    turn = next_of(weekend(scenes.turn_of(scenes.say("Hello"))))
    assert [execution.provider for execution in executions(turn)] == ["acme", "acme"]
    assert told() == []


def test_one_that_tries_a_login_lets_another_one_try_it(eva: Person, ada: Identity, two_logins: None) -> None:
    Identity.objects.filter(pk=ada.pk).update(provider_chain=["acme"])
    login = {"provider": "acme", "login": "key-1", "cause": "overloaded"}
    turn = scenes.turn_of(scenes.say("Hello"))
    Execution.objects.filter(pk=turn.execution_id).update(is_probe=True)
    Breaker.objects.create(**login, state=BreakerState.HALF_OPEN, opened_at=clock.now(), until=clock.now())
    turn = next_of(weekend(turn))
    assert [execution.is_probe for execution in executions(turn)] == [True, True]
    assert turn.state == TurnState.ADMITTED


def test_it_does_not_begin_anew_for_ever(eva: Person) -> None:
    turn = scenes.turn_of(scenes.say("Hello"))
    for _ in range(5):
        assert next_of(weekend(turn)).state == TurnState.ADMITTED
    assert weekend(turn).state == TurnState.FAILED
    assert {execution.state for execution in executions(turn)} == {ExecutionState.FAILED}
    (said,) = told()
    assert "nothing was spent" in said


def test_one_that_somebody_asked_to_stop_is_not_begun_anew(eva: Person) -> None:
    """Its worker was lost before it heard of that, so it waits again."""
    turn = scenes.turn_of(scenes.say("Hello"))
    execution = scenes.claimed(turn)
    actions.stop_turn(turn_id=turn.pk, by=Actor.system("test"), reason="enough")
    execution_actions.requeue(execution=execution, by=scenes.WORKER, why="test")
    assert weekend(turn).state == TurnState.STOPPED
    assert told() == ["Stopped: enough"]
