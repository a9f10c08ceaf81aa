"""Busy modes: what becomes of a message that arrives while its bot works, and the way of one into the running turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations import actions
from conversations.models import Conversation, Delivery, InboundMessage, Message, Turn
from conversations.states import BusyMode, TurnState
from execution import actions as worker
from execution.models import Execution, Offer
from execution.providers import registry
from execution.states import OFFER, Cause, ExecutionState, OutcomeClass
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Fenced
from fleet.kernel.models import JournalEntry
from governance import actions as kill_switch
from governance.states import KillMode, KillScope
from identities.models import ChatAccount
from tests.conversations import scenes
from tests.conversations.scenes import WORKER, end, operator, running, say, turn_of
from tests.conversations.test_lanes import somebody_waits_for_a_lock
from tests.identities.races import race


def talk(mode: str = "steer") -> Execution:
    """Eva's turn runs, in a conversation with this busy mode."""
    execution = running(turn_of(say("Hello")))
    Conversation.objects.update(busy_mode=mode)
    return execution


def fresh(turn: Turn) -> Turn:
    return Turn.objects.get(pk=turn.pk)


def steered(execution: Execution) -> Offer:
    """Its worker hands the next message over, and the provider confirms it."""
    offer = worker.hand(execution=execution, by=WORKER)
    worker.take_offer(execution=execution, offer=offer, by=WORKER)
    return offer


def answered(execution: Execution) -> None:
    end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.")


def lost(execution: Execution, *, gone: bool = True) -> None:
    end(execution, ExecutionState.LOST, OutcomeClass.LOST, gone=gone)


def notes() -> list[str]:
    return list(Delivery.objects.filter(kind="progress").order_by("pk").values_list("text", flat=True))


@pytest.fixture
def heard(monkeypatch) -> dict[str, bool | None]:
    """What the provider has written down of messages whose hand-over nobody saw the end of."""
    known: dict[str, bool | None] = {}
    look_up = lambda home, session_id, uuid: known.get(uuid)  # noqa: E731
    monkeypatch.setattr(registry.get("mock"), "has_heard", look_up)
    return known


class TestSteer:
    def test_a_confirmed_message_is_part_of_the_running_turn_and_told_once(self, eva):
        execution = talk()
        waiting = turn_of(say("And this"))
        offer = steered(execution)
        row = InboundMessage.objects.get(text="And this")
        assert (row.turn, row.uuid, waiting.pk != execution.turn.pk) == (execution.turn, offer.uuid, True)
        assert Message.objects.get(text="And this").turn == execution.turn
        assert (fresh(waiting).state, fresh(waiting).taken_by) == (TurnState.JOINED, execution.turn)
        assert notes() == ["I take this into what I am working on."]
        assert JournalEntry.objects.filter(event="conversations.turn.steered").count() == 1

    def test_nothing_is_reserved_for_it(self, eva):
        execution = talk()
        say("And this")
        steered(execution)
        answered(execution)
        assert Execution.objects.count() == 1
        assert actions.advance(execution.turn.conversation_id) is None

    def test_nobody_is_told_anything_before_it_is_decided(self, eva):
        talk()
        say("And this")
        assert notes() == []

    def test_what_the_provider_refuses_is_the_next_turn_and_is_told_so(self, eva):
        execution = talk()
        waiting = turn_of(say("And this"))
        worker.hand(execution=execution, by=WORKER)
        worker.return_offers(execution=execution, by=WORKER)
        assert notes() == ["An earlier message here comes first. Yours is number 1 in the queue; /stop clears it."]
        answered(execution)
        assert actions.advance(waiting.conversation_id) == waiting
        assert [text["text"] for text in fresh(waiting).execution.prompt] == ["And this"]

    def test_what_nobody_handed_over_before_the_end_is_the_next_turn(self, eva):
        execution = talk()
        waiting = turn_of(say("And this"))
        answered(execution)
        assert (Offer.objects.get().state, notes()) == ("returned", [])
        assert actions.advance(waiting.conversation_id) == waiting

    def test_a_refusal_gives_back_all_that_came_after_it(self, eva):
        execution = talk()
        waiting = [turn_of(say(f"Message {number}")) for number in range(3)]
        steered(execution)
        worker.hand(execution=execution, by=WORKER)
        worker.return_offers(execution=execution, by=WORKER)
        assert [fresh(turn).state for turn in waiting] == ["joined", "queued", "queued"]
        assert worker.hand(execution=execution, by=WORKER) is None

    def test_nothing_overtakes_a_message_that_waits(self, eva):
        execution = talk("followup")
        say("First")
        Conversation.objects.update(busy_mode="steer")
        say("Second")
        assert not Offer.objects.exists()
        assert worker.hand(execution=execution, by=WORKER) is None

    def test_while_nobody_knows_of_one_the_next_is_not_handed(self, eva):
        execution = talk()
        say("One")
        say("Two")
        assert worker.hand(execution=execution, by=WORKER).text == "One"
        assert worker.hand(execution=execution, by=WORKER) is None

    def test_a_turn_that_is_tried_again_asks_what_it_took_too(self, eva):
        execution = talk()
        first = execution.turn
        say("And this")
        steered(execution)
        Execution.objects.filter(pk=execution.pk).update(login="key-1")
        end(execution, ExecutionState.FAILED, OutcomeClass.OVERLOAD, cause=Cause.OVERLOADED, sentence="No.")
        assert (fresh(first).state, fresh(first).tries) == ("queued", 1)
        Turn.objects.update(parked_until=None)
        actions.advance(first.conversation_id)
        assert [text["text"] for text in fresh(first).execution.prompt] == ["Hello", "And this"]

    def test_only_whose_turn_it_is_steers_it(self, eva):
        ChatAccount.objects.create(platform="telegram", external_id="502", person=operator("otto"))
        execution = running(turn_of(say("Hello", chat_id="-100")))
        Conversation.objects.update(busy_mode="steer")
        theirs = say("Hello from Otto", chat_id="-100", sender_id="502")
        assert (turn_of(theirs).state, Offer.objects.count()) == ("queued", 0)
        assert worker.hand(execution=execution, by=WORKER) is None

    def test_a_provider_that_does_not_steer_is_offered_nothing(self, eva):
        execution = talk()
        Execution.objects.filter(pk=execution.pk).update(provider="claude")
        assert turn_of(say("And this")).state == "queued"
        assert not Offer.objects.exists()
        assert "number 1" in notes()[0]

    def test_what_arrives_before_the_gate_opens_still_joins(self, eva):
        first = turn_of(say("Hello"))
        Conversation.objects.update(busy_mode="steer")
        assert say("And this").turn_id == first.pk

    def test_a_stop_of_the_turn_that_waits_takes_its_message_back(self, eva):
        execution = talk()
        waiting = turn_of(say("And this"))
        actions.stop_turn(turn_id=waiting.pk, by=Actor.person(eva), reason="enough")
        assert worker.hand(execution=execution, by=WORKER) is None
        assert fresh(waiting).state == "stopped"

    def test_stop_takes_everything_back_that_waits(self, eva):
        execution = talk()
        for number in range(3):
            say(f"Message {number}")
        assert "3 waiting" in say("/stop").answer
        assert worker.hand(execution=execution, by=WORKER) is None

    def test_a_message_that_was_taken_while_its_turn_was_stopped_stays_where_it_is(self, eva):
        execution = talk()
        waiting = turn_of(say("And this"))
        offer = worker.hand(execution=execution, by=WORKER)
        actions.stop_turn(turn_id=waiting.pk, by=Actor.person(eva), reason="enough")
        worker.take_offer(execution=execution, offer=offer, by=WORKER)
        assert InboundMessage.objects.get(text="And this").turn == execution.turn
        assert fresh(waiting).state == "stopped"

    def test_under_a_kill_order_nothing_new_is_taken_in(self, eva):
        talk()
        kill_switch.stop(
            scope=KillScope.FLEET, scope_id="", mode=KillMode.DRAIN, reason="fire drill", by=Actor.system("test")
        )
        say("And this")
        assert not Offer.objects.exists()

    def test_a_turn_that_is_told_to_stop_is_handed_nothing(self, eva):
        execution = talk()
        say("And this")
        worker.request_stop(execution_id=execution.pk, reason="enough", by=WORKER)
        assert worker.hand(execution=execution, by=WORKER) is None
        assert not worker.offer(
            execution_id=execution.pk, text={"uuid": "c0ffee00-0000-4000-8000-000000000000", "text": "x"}, by=WORKER
        )

    def test_a_worker_that_was_fenced_hands_over_and_decides_nothing(self, eva):
        execution = talk()
        say("And this")
        offer = worker.hand(execution=execution, by=WORKER)
        Execution.objects.filter(pk=execution.pk).update(epoch=7)
        assert worker.hand(execution=execution, by=WORKER) is None
        with pytest.raises(Fenced):
            worker.take_offer(execution=execution, offer=offer, by=WORKER)
        with pytest.raises(Fenced):
            worker.return_offers(execution=execution, by=WORKER)


class TestNobodySawTheAnswer:
    """The worker died, or the provider was silent, between the hand-over and its answer."""

    def test_the_providers_notes_say_that_the_turn_had_it(self, eva, heard):
        execution = talk()
        waiting = turn_of(say("And this"))
        heard[str(worker.hand(execution=execution, by=WORKER).uuid)] = True
        lost(execution)
        assert (fresh(waiting).state, InboundMessage.objects.get(text="And this").turn) == ("joined", execution.turn)

    def test_the_providers_notes_say_that_it_had_not(self, eva, heard):
        execution = talk()
        waiting = turn_of(say("And this"))
        heard[str(worker.hand(execution=execution, by=WORKER).uuid)] = False
        lost(execution)
        assert (fresh(waiting).state, Offer.objects.get().doubtful) == ("queued", False)
        assert actions.advance(waiting.conversation_id) == waiting

    @pytest.mark.parametrize(("noted", "gone"), [(None, True), (False, False)], ids=["no notes", "it may still write"])
    def test_where_nobody_can_tell_it_is_answered_with_a_mark(self, eva, heard, noted, gone):
        execution = talk()
        waiting = turn_of(say("And this"))
        heard[str(worker.hand(execution=execution, by=WORKER).uuid)] = noted
        lost(execution, gone=gone)
        assert (fresh(waiting).state, Offer.objects.get().doubtful) == ("queued", True)
        assert "nobody can tell" in Delivery.objects.get(turn=waiting, kind="notice").text

    def test_notes_that_cannot_be_read_are_no_answer(self, eva, monkeypatch):
        def fails(*_: object) -> bool:
            raise OSError("disk on fire")

        monkeypatch.setattr(registry.get("mock"), "has_heard", fails)
        execution = talk()
        say("And this")
        worker.hand(execution=execution, by=WORKER)
        lost(execution)
        assert Offer.objects.get().doubtful


class TestOtherModes:
    def test_interrupt_stops_the_running_turn_and_is_answered_next(self, eva):
        execution = talk("interrupt")
        newer = turn_of(say("No, this"))
        execution.refresh_from_db()
        assert "newer message" in execution.stop_reason
        assert notes() == ["I stop what I was working on and take this up next."]
        end(execution, ExecutionState.STOPPED, OutcomeClass.STOPPED)
        assert actions.advance(newer.conversation_id) == newer

    def test_what_arrives_while_it_is_being_interrupted_is_answered_with_it(self, eva):
        talk("interrupt")
        newer = say("No, this")
        assert say("And that").turn_id == newer.turn_id
        assert len(notes()) == 1

    def test_another_person_interrupts_nothing(self, eva):
        ChatAccount.objects.create(platform="telegram", external_id="502", person=operator("otto"))
        execution = running(turn_of(say("Hello", chat_id="-100")))
        Conversation.objects.update(busy_mode="interrupt")
        say("Hello from Otto", chat_id="-100", sender_id="502")
        execution.refresh_from_db()
        assert execution.stop_requested_at is None
        assert "number 1" in notes()[0]

    @pytest.mark.parametrize("mode", ["collect", "followup"])
    def test_the_others_offer_and_stop_nothing(self, eva, mode):
        execution = talk(mode)
        say("And this")
        execution.refresh_from_db()
        assert (execution.stop_requested_at, execution.offered) == (None, 0)


class TestSwitching:
    def test_the_default_is_to_collect_and_the_command_tells_it(self, eva):
        say("Hello")
        assert say("/busy").answer.startswith("While I work here: collect.")

    @pytest.mark.parametrize("mode", BusyMode.values)
    def test_the_command_changes_it_for_this_conversation_alone(self, eva, mode):
        say("Hello", chat_id="-2")
        say("Hello")
        assert f"While I work here: {mode}." in say(f"/busy {mode.upper()}").answer
        assert Conversation.objects.get(chat_id="501").busy_mode == mode
        assert Conversation.objects.get(chat_id="-2").busy_mode == "collect"

    def test_each_change_is_in_the_journal_once(self, eva):
        say("Hello")
        for _ in range(2):
            say("/busy steer")
        entry = JournalEntry.objects.get(event="conversations.conversation.busy_mode_set")
        assert (entry.details["from"], entry.details["to"], entry.actor_name) == ("collect", "steer", "eva")

    def test_whoever_decides_last_decides_whatever_they_had_seen(self, eva):
        say("Hello")
        seen = Conversation.objects.get()
        actions.set_busy_mode(conversation=Conversation.objects.get(), mode="followup", by=Actor.system("test"))
        assert actions.set_busy_mode(conversation=seen, mode="steer", by=Actor.system("test"))
        assert (seen.busy_mode, Conversation.objects.get().busy_mode) == ("steer", "steer")
        last = JournalEntry.objects.filter(event="conversations.conversation.busy_mode_set").order_by("-pk")[0]
        assert (last.details["from"], last.details["to"]) == ("followup", "steer")

    def test_a_word_that_is_no_mode_is_refused_with_those_that_are(self, eva):
        say("Hello")
        refused = say("/busy quickly")
        assert (refused.kind, "interrupt" in refused.refusal["next_step"]) == ("refused", True)
        assert Conversation.objects.get().busy_mode == "collect"


STEPS = ["say", "say", "hand", "take", "refuse", "stays_silent", "answer", "lose", "stop_a_waiting_one", "begin"]


class Stage:
    """One conversation that steers, its worker, and a provider that remembers what it was given."""

    def __init__(self, person: Any, heard: dict[str, bool | None]) -> None:
        self.by, self.notes = Actor.person(person), heard
        self.given: list[str] = []
        self.said: list[str] = []
        self.execution: Execution | None = None
        self.handed: Offer | None = None
        self.number = 0

    def take_step(self, step: str) -> None:
        getattr(self, step)()

    def say(self) -> None:
        self.number += 1
        text = f"Message {self.number}"
        if say(text).kind == "turn":
            self.said.append(text)
            Conversation.objects.update(busy_mode="steer")

    def begin(self) -> None:
        turn = Turn.objects.filter(state="admitted").first() or self._advanced()
        if self.execution is None and turn is not None:
            self.execution = scenes.running(turn)
            row = Execution.objects.get(pk=self.execution.pk)
            # Without the summary that begins a new session, as after three failures.
            self.given += [text["text"] for text in row.prompt if text["uuid"] != row.session_id]

    def _advanced(self) -> Turn | None:
        place = Conversation.objects.first()
        turn = actions.advance(place.pk) if place else None
        return turn if turn and turn.state == "admitted" else None

    def hand(self) -> None:
        if self.execution and self.handed is None:
            self.handed = worker.hand(execution=self.execution, by=WORKER)

    def take(self) -> None:
        if self.execution and self.handed:
            self.given.append(self.handed.text)
            worker.take_offer(execution=self.execution, offer=self.handed, by=WORKER)
            self.handed = None

    def refuse(self) -> None:
        if self.execution and self.handed:
            worker.return_offers(execution=self.execution, by=WORKER)
            self.handed = None

    def stays_silent(self) -> None:
        """It has taken the message, and nobody hears that it did."""
        if self.handed and str(self.handed.uuid) not in self.notes:
            self.notes[str(self.handed.uuid)] = True
            self.given.append(self.handed.text)
            self.take, self.refuse = (lambda: None), (lambda: None)

    def answer(self) -> None:
        self._end(ExecutionState.SUCCEEDED, OutcomeClass.OK)

    def lose(self) -> None:
        self._end(ExecutionState.LOST, OutcomeClass.LOST)

    def _end(self, state: ExecutionState, outcome: OutcomeClass) -> None:
        if self.execution:
            if self.handed:
                self.notes.setdefault(str(self.handed.uuid), False)
            end(self.execution, state, outcome, answer="")
            self.execution = self.handed = None
            self.__dict__.pop("take", None)
            self.__dict__.pop("refuse", None)

    def stop_a_waiting_one(self) -> None:
        turn = Turn.objects.filter(state="queued").order_by("-pk").first()
        if turn and not Offer.objects.filter(uuid__in=turn.inbound.values("uuid"), state="handed").exists():
            stopped = list(turn.inbound.values_list("text", flat=True))
            actions.stop_turn(turn_id=turn.pk, by=self.by, reason="enough")
            self.said = [text for text in self.said if text not in stopped]

    def check(self) -> None:
        assert len(self.given) == len(set(self.given)), "something was given to the provider twice"
        assert self.given == self.said[: len(self.given)], "something was lost, or overtook what was said before it"
        assert all(turn.inbound.exists() for turn in Turn.objects.filter(state__in=("queued", "admitted", "running")))

    def play_to_the_end(self) -> None:
        while self.execution or Turn.objects.filter(state__in=("queued", "admitted")).exists():
            self.answer()
            self.begin()
        assert self.given == self.said
        assert not Offer.objects.filter(state__in=OFFER.live).exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=6, max_size=30))
def test_whatever_comes_every_message_is_given_once_and_in_order(eva, heard, steps: list[str]) -> None:
    with transaction.atomic():
        stage = Stage(eva, heard)
        for step in ["say", "begin", *steps]:
            stage.take_step(step)
            stage.check()
        stage.play_to_the_end()
        transaction.set_rollback(True)


def noticed(call: Callable[[], object], troubles: list[Exception]) -> Callable[[], None]:
    """The call, with what goes wrong in it kept: a deadlock in a thread would go unseen."""

    def noticing() -> None:
        try:
            call()
        except Exception as trouble:
            troubles.append(trouble)
        finally:
            connection.close()

    return noticing


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stop", ["one waiting turn", "everything"] * 5)
def test_a_hand_over_a_stop_another_message_and_the_end_at_once_lose_and_double_nothing(eva, heard, stop) -> None:
    execution = talk()
    waiting = [turn_of(say(f"Message {one}")) for one in range(3)]
    given: list[str] = []
    troubles: list[Exception] = []

    def handed() -> Offer | None:
        """What is handed is heard before anybody can end the turn: `Steering.end` waits for the answer."""
        with transaction.atomic():
            if (offer := worker.hand(execution=execution, by=WORKER)) is not None:
                heard[str(offer.uuid)] = True
                given.append(offer.text)
            return offer

    def hands() -> None:
        while (offer := handed()) is not None:
            with suppress(Fenced):  # the end was faster, and has asked the provider's notes
                worker.take_offer(execution=execution, offer=offer, by=WORKER)

    def stops() -> None:
        if stop == "everything":
            say("/stop")
        else:
            actions.stop_turn(turn_id=waiting[-1].pk, by=Actor.person(eva), reason="enough")

    calls = (hands, stops, lambda: say("Message 3"), lambda: answered(execution))
    race(*(noticed(call, troubles) for call in calls))
    assert troubles == []
    while turn := Turn.objects.filter(state="admitted").first() or actions.advance(execution.turn.conversation_id):
        given += [text["text"] for text in fresh(turn).execution.prompt]
        answered(running(turn))
    stopped = set(InboundMessage.objects.filter(turn__state="stopped").values_list("text", flat=True))
    stopped -= set(given)  # what was handed over while its turn was stopped
    assert sorted(given) == sorted({"Message 0", "Message 1", "Message 2", "Message 3"} - stopped)


@pytest.mark.django_db(transaction=True)
def test_whoever_stops_everything_waits_for_the_worker_without_holding_what_it_needs(eva) -> None:
    execution = talk()
    say("And this")
    troubles: list[Exception] = []
    stopping = threading.Thread(target=noticed(lambda: say("/stop"), troubles))
    with transaction.atomic():
        Execution.objects.select_for_update(no_key=True).get(pk=execution.pk)
        stopping.start()
        deadline = time.monotonic() + 20
        while not somebody_waits_for_a_lock():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert Offer.objects.select_for_update(nowait=True).get().state == "offered"
    stopping.join(20)
    assert (troubles, Offer.objects.get().state) == ([], "returned")
