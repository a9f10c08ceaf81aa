"""A login that cannot be used: another of the chain answers, or the message waits until it can; people are told once."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine

from budgets.models import Reservation, TokenLedger
from budgets.states import Billing
from conversations import actions
from conversations.models import Delivery, Session, Told, Turn
from conversations.states import TurnState
from execution import actions as execution_actions
from execution.models import Breaker, Execution
from execution.ports import Usage
from execution.states import Cause, EventKind, ExecutionState, OutcomeClass
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from identities.models import Identity, Person
from tests.conversations import scenes
from tests.execution.logins import CHAIN, two_logins

__all__ = ["two_logins"]
pytestmark = pytest.mark.django_db(transaction=True)

NOON = dt.datetime(2027, 3, 1, 12, tzinfo=dt.UTC)
THREE = dt.datetime(2027, 3, 1, 15, tzinfo=dt.UTC)
FOUR = dt.datetime(2027, 3, 1, 16, tzinfo=dt.UTC)
OPERATOR = Actor("person", "1", "eva")


@pytest.fixture
def at_noon() -> Any:
    """It is twelve o'clock, and time moves only when a test says so."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def chain(eva: Person, ada: Identity, two_logins: None, at_noon: Any) -> Identity:
    """Ada asks Acme first, then Bolt."""
    Identity.objects.filter(pk=ada.pk).update(provider_chain=CHAIN)
    ada.refresh_from_db()
    return ada


@pytest.fixture
def only_acme(chain: Identity) -> Identity:
    """Ada has nobody but Acme."""
    Identity.objects.filter(pk=chain.pk).update(provider_chain=["acme"])
    return chain


def fail(
    turn: Turn, cause: Cause = Cause.USAGE_LIMIT, outcome: OutcomeClass = OutcomeClass.LIMIT, **fields: Any
) -> Turn:
    """The turn's execution begins and ends for this cause."""
    scenes.end(scenes.running(turn), ExecutionState.FAILED, outcome, cause=cause, sentence="No.", **fields)
    turn.refresh_from_db()
    return turn


def next_of(turn: Turn) -> Turn:
    """What the hint after the commit, or the sweep, does."""
    actions.advance(turn.conversation_id)
    turn.refresh_from_db()
    return turn


def told() -> list[str]:
    """What the bot has said, without progress."""
    return list(Delivery.objects.exclude(kind="progress").order_by("pk").values_list("text", flat=True))


def breaker(provider: str = "acme") -> Breaker:
    return Breaker.objects.get(provider=provider)


def provider_of(turn: Turn) -> str:
    assert turn.execution is not None
    return turn.execution.provider


class TestAStopBesideAFailure:
    """A person presses Stop while a provider waits for its API, which refuses before the worker has heard."""

    def test_nothing_follows_and_the_turn_was_stopped(self, chain: Identity) -> None:
        turn = scenes.turn_of(scenes.say("Hello"))
        execution = scenes.running(turn)
        assert actions.stop_turn(turn_id=turn.pk, by=OPERATOR, reason="enough") == TurnState.RUNNING
        scenes.end(execution, ExecutionState.FAILED, OutcomeClass.LIMIT, cause=Cause.USAGE_LIMIT, sentence="No.")
        turn.refresh_from_db()
        assert (turn.state, turn.sentence) == (TurnState.STOPPED, "Stopped: enough")
        assert next_of(turn).state == TurnState.STOPPED
        assert told() == ["Stopped: enough"]
        assert breaker().state == "open", "what was learned of the login stays learned"

    def test_one_that_comes_while_the_turn_is_handed_on_stops_what_was_to_follow(
        self, chain: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turn = scenes.turn_of(scenes.say("Hello"))
        execution = scenes.running(turn)
        request_stop = execution_actions.request_stop

        def too_late(**asked: Any) -> Any:
            monkeypatch.setattr(execution_actions, "request_stop", request_stop)
            scenes.end(execution, ExecutionState.FAILED, OutcomeClass.LIMIT, cause=Cause.USAGE_LIMIT, sentence="No.")
            return request_stop(**asked)

        monkeypatch.setattr(execution_actions, "request_stop", too_late)
        assert actions.stop_turn(turn_id=turn.pk, by=OPERATOR, reason="enough") == TurnState.STOPPED
        assert next_of(turn).state == TurnState.STOPPED


class TestTheNextOfTheChain:
    def test_takes_the_same_turn_and_the_person_is_told_once(self, chain: Identity) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        assert (turn.state, turn.execution, turn.parked_until) == (TurnState.QUEUED, None, None)
        assert (next_of(turn).state, provider_of(turn)) == (TurnState.ADMITTED, "bolt")
        assert told() == ["Acme's login has reached its limit until 15:00; Bolt answers meanwhile."]
        assert scenes.answer(turn).state == TurnState.REPLIED
        assert told()[1:] == ["Good day."]

    def test_answers_the_next_message_at_once_and_in_silence(self, chain: Identity) -> None:
        scenes.answer(next_of(fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)))
        before = len(told())
        turn = scenes.turn_of(scenes.say("And now?"))
        assert (provider_of(turn), turn.tries, len(told())) == ("bolt", 0, before)

    def test_tells_another_conversation_too(self, chain: Identity) -> None:
        next_of(fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE))
        scenes.say("Hello", chat_id="502", thread_id="")
        assert told() == ["Acme's login has reached its limit until 15:00; Bolt answers meanwhile."] * 2

    def test_goes_on_in_a_session_of_its_own_with_a_summary(self, chain: Identity) -> None:
        scenes.answer(scenes.turn_of(scenes.say("My cat is called Tom.")))
        turn = next_of(fail(scenes.turn_of(scenes.say("What is my cat called?")), retry_at=THREE))
        assert turn.session is not None and turn.session.parent is not None
        assert (turn.session.provider, turn.session.parent.provider) == ("bolt", "acme")
        assert "Tom" in turn.execution.prompt[0]["text"]
        assert [text for text in told() if "new session" in text] == []

    def test_pays_for_itself_and_what_the_first_used_stays_where_it_was_posted(self, chain: Identity) -> None:
        turn = scenes.turn_of(scenes.say("Hello"))
        first = scenes.running(turn)
        usage = Usage("m1", "mock-1", input_uncached=900)
        execution_actions.meter(execution=first, usages=[usage], billing=Billing.API)
        scenes.end(first, ExecutionState.FAILED, OutcomeClass.LIMIT, cause=Cause.USAGE_LIMIT, retry_at=THREE)
        turn = next_of(turn)
        turn.refresh_from_db()
        assert turn.execution is not None and turn.execution.reservation_id != first.reservation_id
        assert Reservation.objects.get(pk=first.reservation_id).state == "settled"
        assert Reservation.objects.get(pk=turn.execution.reservation_id).state == "held"
        assert set(TokenLedger.objects.values_list("execution_id", "provider")) == {(first.pk, "acme")}

    def test_a_message_key_is_not_used_twice(self, chain: Identity) -> None:
        turn = scenes.turn_of(scenes.say("Hello"))
        first = Turn.objects.get(pk=turn.pk).execution.prompt[0]["uuid"]
        turn = next_of(fail(turn, retry_at=THREE))
        assert turn.execution.prompt[-1]["uuid"] != first

    def test_is_not_asked_once_a_text_was_shown(self, chain: Identity) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), answer="I thi", retry_at=THREE)
        assert (turn.state, turn.tries) == (TurnState.FAILED, 0)
        assert told() == ["I thi", "No."]

    def test_is_not_asked_once_a_tool_was_called(self, chain: Identity) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), fields={"tool_calls": 1}, retry_at=THREE)
        assert turn.state == TurnState.FAILED

    def test_is_not_asked_once_a_text_was_streamed(self, chain: Identity) -> None:
        turn = scenes.turn_of(scenes.say("Hello"))
        running = scenes.running(turn)
        execution_actions.record_events(execution=running, first_sequence=1, lines=[(EventKind.TEXT, {"text": "I"})])
        scenes.end(running, ExecutionState.FAILED, OutcomeClass.LIMIT, cause=Cause.USAGE_LIMIT, retry_at=THREE)
        turn.refresh_from_db()
        assert turn.state == TurnState.FAILED

    @pytest.mark.parametrize("cause", [Cause.MALFORMED, Cause.SAFETY, Cause.STEPS, Cause.MEMORY, Cause.TIME, ""])
    def test_is_not_asked_for_what_is_not_the_logins_trouble(self, chain: Identity, cause: Any) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), cause, OutcomeClass.ERROR)
        assert turn.state == TurnState.FAILED
        assert not Breaker.objects.exists()

    def test_is_not_asked_for_what_was_lost(self, chain: Identity) -> None:
        turn = scenes.turn_of(scenes.say("Hello"))
        scenes.end(scenes.running(turn), ExecutionState.LOST, OutcomeClass.LOST, cause=Cause.USAGE_LIMIT)
        turn.refresh_from_db()
        assert turn.state == TurnState.INTERRUPTED

    def test_takes_over_from_an_overloaded_one_that_is_not_shut_yet(self, chain: Identity) -> None:
        turn = next_of(fail(scenes.turn_of(scenes.say("Hello")), Cause.OVERLOADED, OutcomeClass.OVERLOAD))
        assert (provider_of(turn), breaker().state) == ("bolt", "closed")
        assert told() == ["Acme is overloaded; Bolt answers meanwhile."]

    def test_gives_back_to_the_first_when_its_moment_has_come(self, chain: Identity, at_noon: Any) -> None:
        scenes.answer(next_of(fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)))
        at_noon.move_to(THREE)
        turn = scenes.turn_of(scenes.say("And now?"))
        assert (provider_of(turn), turn.execution.is_probe, breaker().state) == ("acme", True, "half_open")
        scenes.answer(turn)
        assert breaker().state == "closed"


class TestWaiting:
    def test_a_message_nobody_can_answer_waits_until_the_first_login_can(self, chain: Identity, at_noon: Any) -> None:
        turn = next_of(fail(scenes.turn_of(scenes.say("Hello")), retry_at=FOUR))
        turn = fail(turn, retry_at=THREE)
        assert (turn.state, turn.parked_until, turn.tries) == (TurnState.QUEUED, THREE, 2)
        assert told()[1:] == [
            "Acme's login has reached its limit until 16:00, and Bolt's login has reached its limit until 15:00."
            " Your message waits and is taken up again by itself at 15:00; /stop takes it back."
        ]
        actions.sweep()
        turn.refresh_from_db()
        assert turn.state == TurnState.QUEUED

        at_noon.move_to(THREE)
        actions.sweep()
        turn.refresh_from_db()
        assert (turn.state, provider_of(turn), turn.parked_until) == (TurnState.ADMITTED, "bolt", None)
        scenes.answer(turn)
        assert told()[-1] == "Good day." and told().count("Good day.") == 1

    def test_holds_no_money_meanwhile(self, only_acme: Identity) -> None:
        fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        assert not Reservation.objects.filter(state="held").exists()

    def test_a_new_message_is_not_spent_on_a_login_that_is_shut(self, only_acme: Identity) -> None:
        fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        turn = scenes.turn_of(scenes.say("Hello", chat_id="502"))
        assert (turn.state, turn.parked_until, turn.execution) == (TurnState.QUEUED, THREE, None)
        assert Execution.objects.count() == 1
        assert len(told()) == 2

    def test_what_is_written_meanwhile_is_answered_with_it(self, only_acme: Identity, at_noon: Any) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        assert scenes.turn_of(scenes.say("Are you there?")) == turn
        at_noon.move_to(THREE)
        turn = next_of(turn)
        assert [text["text"] for text in turn.execution.prompt] == ["Hello", "Are you there?"]

    def test_the_person_can_take_it_back(self, only_acme: Identity) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        assert "1 waiting" in scenes.say("/stop").answer
        turn.refresh_from_db()
        assert turn.state == TurnState.STOPPED

    def test_status_says_until_when(self, only_acme: Identity) -> None:
        fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        answer = scenes.say("/status").answer
        assert "1 waiting until 15:00." in answer
        assert "Acme's login has reached its limit until 15:00." in answer

    def test_status_says_nothing_of_a_login_that_the_next_message_tries(
        self, only_acme: Identity, at_noon: Any
    ) -> None:
        fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        at_noon.move_to(THREE)
        assert "limit" not in scenes.say("/status").answer

    def test_a_kill_order_reaches_it(self, only_acme: Identity) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        order = governance_actions.stop(
            scope=KillScope.FLEET, scope_id="", mode=KillMode.STOP, reason="enough", by=OPERATOR
        )
        actions.silence(order.pk)
        turn.refresh_from_db()
        assert turn.state == TurnState.REFUSED

    def test_a_wait_that_is_too_long_is_refused_with_the_moment(self, only_acme: Identity) -> None:
        fail(scenes.turn_of(scenes.say("Hello")), retry_at=NOON + dt.timedelta(days=3))
        turn = scenes.turn_of(scenes.say("Hello", chat_id="502"))
        assert turn.state == TurnState.REFUSED
        assert "until 4 March 12:00" in turn.sentence and "Send it again after 04 March 12:00 UTC." in turn.sentence

    def test_comes_again_a_few_times_and_then_ends(self, only_acme: Identity, at_noon: Any) -> None:
        turn = scenes.turn_of(scenes.say("Hello"))
        tries = 0
        while fail(turn, Cause.SERVER_FAULT, OutcomeClass.OVERLOAD).state == TurnState.QUEUED:
            tries += 1
            at_noon.move_to(turn.parked_until)
            next_of(turn)
        assert (turn.state, tries) == (TurnState.FAILED, 2)
        waits = [text for text in told() if "taken up again" in text]
        assert len(waits) == 1 and "in 30 seconds" in waits[0]

    def test_a_new_worker_may_have_another_key(self, only_acme: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), Cause.AUTH, OutcomeClass.AUTH)
        assert turn.parked_until is not None
        monkeypatch.setattr("tests.execution.logins.Acme.login", lambda self: "key-3")
        execution_actions.register_worker(process=scenes.facts(), slots=1, by=scenes.WORKER)
        assert (next_of(turn).state, turn.execution.login) == (TurnState.ADMITTED, "key-3")


class TestTheBreaker:
    def test_lets_exactly_one_through_when_its_moment_has_come(self, only_acme: Identity, at_noon: Any) -> None:
        first = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        second = scenes.turn_of(scenes.say("Hello", chat_id="502"))
        at_noon.move_to(THREE)
        assert next_of(first).state == TurnState.ADMITTED
        assert next_of(second).state == TurnState.QUEUED
        scenes.answer(first)
        second.refresh_from_db()
        assert (breaker().state, second.parked_until) == ("closed", None)
        assert next_of(second).state == TurnState.ADMITTED

    def test_the_one_try_is_taken_once(self, only_acme: Identity, at_noon: Any) -> None:
        fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        assert not execution_actions.probe(breaker_id=breaker().pk, by=OPERATOR)
        at_noon.move_to(THREE)
        assert execution_actions.probe(breaker_id=breaker().pk, by=OPERATOR)
        assert not execution_actions.probe(breaker_id=breaker().pk, by=OPERATOR)

    def test_a_try_that_meets_the_limit_again_tells_the_new_moment(self, only_acme: Identity, at_noon: Any) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        at_noon.move_to(THREE)
        turn = fail(next_of(turn), retry_at=FOUR)
        assert (breaker().state, breaker().until, turn.parked_until) == ("open", FOUR, FOUR)
        assert [("15:00" in text, "16:00" in text) for text in told()] == [(True, False), (False, True)]

    def test_a_try_that_says_nothing_about_the_login_leaves_it_to_the_next(
        self, only_acme: Identity, at_noon: Any
    ) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        at_noon.move_to(THREE)
        fail(next_of(turn), Cause.MALFORMED, OutcomeClass.ERROR)
        assert (breaker().state, breaker().until) == ("open", THREE)
        assert scenes.turn_of(scenes.say("Again")).execution.is_probe

    def test_a_try_that_was_refused_by_a_budget_is_given_back(
        self, only_acme: Identity, at_noon: Any, monkeypatch
    ) -> None:
        from fleet.kernel.exceptions import Refused

        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=THREE)
        at_noon.move_to(THREE)

        def refuse(**_: Any) -> None:
            raise Refused("There is no money.")

        monkeypatch.setattr("conversations.actions.admission.budget_actions.reserve", refuse)
        assert next_of(turn).state == TurnState.REFUSED
        assert breaker().state == "open"

    def test_without_a_moment_it_waits_longer_each_time(self, only_acme: Identity, at_noon: Any) -> None:
        turn, pauses = scenes.turn_of(scenes.say("Hello")), []
        for _ in range(3):
            turn = fail(turn, Cause.AUTH, OutcomeClass.AUTH)
            pauses.append((breaker().until - clock.now()).total_seconds() / 60)
            at_noon.move_to(breaker().until)
            turn = next_of(turn)
        assert pauses == [10, 20, 40]
        assert len(told()) == 1

    def test_opens_after_three_overloads_in_a_row(self, only_acme: Identity) -> None:
        states = []
        for chat in ("502", "503", "504"):
            fail(scenes.turn_of(scenes.say("Hello", chat_id=chat)), Cause.OVERLOADED, OutcomeClass.OVERLOAD)
            states.append(breaker().state)
        assert states == ["closed", "closed", "open"]

    def test_an_answer_in_between_begins_the_count_anew(self, only_acme: Identity) -> None:
        for chat in ("502", "503"):
            fail(scenes.turn_of(scenes.say("Hello", chat_id=chat)), Cause.OVERLOADED, OutcomeClass.OVERLOAD)
        scenes.answer(scenes.turn_of(scenes.say("Hello", chat_id="504")))
        fail(scenes.turn_of(scenes.say("Hello", chat_id="505")), Cause.OVERLOADED, OutcomeClass.OVERLOAD)
        assert (breaker().state, breaker().failures) == ("closed", 1)

    def test_one_that_was_under_way_may_name_a_later_moment(self, only_acme: Identity) -> None:
        turns = [scenes.turn_of(scenes.say("Hello", chat_id=chat)) for chat in ("502", "503")]
        fail(turns[0], retry_at=THREE)
        fail(turns[1], retry_at=FOUR)
        assert (breaker().until, breaker().opening) == (FOUR, 2)

    def test_a_person_may_have_it_used_again_at_once(self, only_acme: Identity) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), Cause.BILLING)
        execution_actions.reset_breaker(breaker_id=breaker().pk, by=OPERATOR)
        assert breaker().state == "closed"
        assert (next_of(turn).state, turn.execution.is_probe) == (TurnState.ADMITTED, False)
        entry = JournalEntry.objects.get(event="execution.breaker.closed")
        assert (entry.actor_name, entry.details["provider"]) == ("eva", "acme")

    def test_guards_a_login_and_not_its_vendor(self, only_acme: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        fail(scenes.turn_of(scenes.say("Hello")), Cause.AUTH, OutcomeClass.AUTH)
        monkeypatch.setattr("tests.execution.logins.Acme.login", lambda self: "key-3")
        assert scenes.turn_of(scenes.say("Hello", chat_id="502")).state == TurnState.ADMITTED

    def test_the_mock_has_no_login_that_could_be_shut(self, ada: Identity, eva: Person) -> None:
        turn = fail(scenes.turn_of(scenes.say("Hello")), retry_at=clock.now() + dt.timedelta(hours=1))
        assert turn.state == TurnState.FAILED
        assert not Breaker.objects.exists()


def test_nothing_is_written_for_a_message_that_is_simply_answered(chain: Identity) -> None:
    scenes.answer(scenes.turn_of(scenes.say("Hello")))
    assert not Breaker.objects.exists() and not Told.objects.exists()
    assert Session.objects.get().provider == "acme"
