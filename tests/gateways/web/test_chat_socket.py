"""The chat page's socket: who may open it, what it carries, and that it needs Redis only to be quick."""

from __future__ import annotations

import datetime as dt

import pytest
import redis
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.test import Client

from conversations import actions as conversation_actions
from conversations.models import Conversation, Turn
from conversations.states import TurnState
from execution.models import ExecutionEvent
from execution.states import Cause, EventKind, ExecutionState, OutcomeClass
from fleet.kernel import clock, live
from gateways.web import consumers
from identities.models import Identity, Person
from tests.conversations import scenes
from tests.execution.logins import CHAIN, two_logins
from tests.gateways.running import until
from tests.gateways.web.sockets import Browser

__all__ = ["two_logins"]
SIGNED_OUT, NOT_ALLOWED = 4401, 4403


@pytest.fixture
def turn(ada, eva) -> Turn:
    """Eva has asked something; Ada is at work."""
    intake = scenes.say("Hello", account="web:ada", chat_id="c1", sender_id=str(eva.pk), person_id=eva.pk)
    return Turn.objects.get(pk=intake.turn_id)


@pytest.fixture
def address(turn):
    return f"/ws/chat/{turn.conversation_id}/"


def write(execution, *lines):
    """What a worker records of a running turn."""
    last = ExecutionEvent.objects.filter(execution=execution).count()
    for number, (kind, payload) in enumerate(lines, last + 1):
        ExecutionEvent.objects.create(execution=execution, sequence=number, kind=kind, payload=payload)
    live.send(f"execution:{execution.pk}", {"sequence": last + len(lines)})


def texts(frames):
    return [frame["text"] for frame in frames if frame.get("kind") == "text"]


class TestWhoMayOpenIt:
    def test_a_signed_in_person_may(self, browser, address):
        assert browser.open(address).next(type="sync")

    def test_a_foreign_page_may_not_even_shake_hands(self, browser, address):
        assert not browser.open(address, origin="http://127.0.0.1:3000").accepted
        assert not browser.open(address, origin="http://evil.example").accepted

    def test_whoever_is_not_signed_in_is_told_so(self, address):
        browser = Browser(Client())
        assert browser.open(address).close_code() == SIGNED_OUT
        browser.close()

    def test_whoever_may_not_read_the_conversation_is_turned_away(self, browser, address, eva):
        Person.objects.filter(pk=eva.pk).update(roles=[])
        Conversation.objects.update(person=None)
        assert browser.open(address).close_code() == NOT_ALLOWED

    def test_a_conversation_that_does_not_exist_looks_the_same(self, browser, address):
        assert browser.open("/ws/chat/999999/").close_code() == NOT_ALLOWED

    @pytest.mark.parametrize(
        ("loss", "code"),
        [
            (lambda eva: Session.objects.all().delete(), SIGNED_OUT),
            (lambda eva: Person.objects.filter(pk=eva.pk).update(is_active=False), SIGNED_OUT),
            (lambda eva: [eva.set_password("another one"), eva.save()], SIGNED_OUT),
            (lambda eva: [Person.objects.update(roles=[]), Conversation.objects.update(person=None)], NOT_ALLOWED),
        ],
        ids=["signed out", "switched off", "password changed", "rights lost"],
    )
    def test_an_open_socket_closes_when_the_right_is_lost(self, browser, address, eva, monkeypatch, loss, code):
        monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.1)
        socket = browser.open(address)
        socket.next(type="sync")
        loss(eva)
        assert socket.close_code() == code


@pytest.fixture
def chained(two_logins, turn, ada):
    """Ada's first login is at work on a turn, and another can answer."""
    Identity.objects.filter(pk=ada.pk).update(provider_chain=CHAIN)
    scenes.answer(turn, "One.")
    said = scenes.say("More", account="web:ada", chat_id="c1", sender_id=str(turn.person_id), person_id=turn.person_id)
    execution = scenes.running(Turn.objects.get(pk=said.turn_id))
    write(execution, (EventKind.NOTICE, {"text": "Trying."}), (EventKind.NOTICE, {"text": "Trying again."}))
    return execution


def give_up(execution):
    """Its login is used up; the turn goes to the other one."""
    turn = execution.turn
    refused = {"cause": Cause.USAGE_LIMIT, "retry_at": clock.now() + dt.timedelta(hours=1)}
    scenes.end(execution, ExecutionState.FAILED, OutcomeClass.LIMIT, **refused)
    conversation_actions.advance(turn.conversation_id)
    return Turn.objects.get(pk=turn.pk)


class TestWhatItCarries:
    def test_the_answer_as_it_is_written(self, browser, address, turn):
        execution = scenes.running(turn)
        socket = browser.open(address)
        socket.next(type="sync")
        write(execution, (EventKind.TEXT, {"text": "Good "}))
        first = socket.next(type="event")
        place = {"turn": turn.pk, "execution": execution.pk, "seq": 1}
        assert first == {"type": "event", **place, "kind": "text", "text": "Good "}
        write(execution, (EventKind.TEXT, {"text": "day."}))
        assert socket.next(type="event")["text"] == "day."

    def test_tool_calls_and_notices_by_the_names_the_page_knows(self, browser, address, turn):
        execution = scenes.running(turn)
        write(
            execution,
            (EventKind.STARTED, {"version": "1", "model": "m"}),
            (EventKind.TOOL_STARTED, {"call": "c1", "tool": "Read", "target": "a.txt"}),
            (EventKind.TOOL_FINISHED, {"call": "c1", "ok": True, "summary": "3 lines"}),
            (EventKind.NOTICE, {"text": "A new session was opened."}),
            (EventKind.USAGE, {"output": 5}),
            (EventKind.TOOL_DENIED, {"call": "c2", "tool": "Bash", "target": "ls", "reason": "Nobody granted it."}),
            (EventKind.RETRYING, {"text": "Claude asks us to wait; trying again.", "at": None, "cause": "rate_limit"}),
        )
        events = [frame for frame in browser.open(address).until(type="sync") if frame["type"] == "event"]
        assert [(frame["seq"], frame["kind"]) for frame in events] == [
            (2, "tool_started"),
            (3, "tool_finished"),
            (4, "state"),
            (6, "tool_denied"),
            (7, "state"),
        ]
        assert events[4]["label"] == "Claude asks us to wait; trying again."
        assert events[3]["reason"] == "Nobody granted it."
        assert events[0]["tool"] == "Read"
        assert events[2]["label"] == "A new session was opened."

    def test_each_state_of_a_turn_and_the_message_at_its_end(self, browser, address, turn):
        socket = browser.open(address)
        frames = socket.until(type="sync")
        assert {"type": "turn", "turn": turn.pk, "state": "admitted", "label": "Admitted"} in frames
        scenes.answer(turn, "Good day.")
        socket.next(type="turn", state="replied")
        message = turn.messages.get(author="bot")
        page = f"/chat/{turn.conversation_id}/messages/{message.pk}/"
        assert socket.next(type="message") == {"type": "message", "id": message.pk, "html_url": page}

    def test_every_event_of_a_turn_comes_before_its_end(self, browser, address, turn):
        socket = browser.open(address)
        socket.next(type="sync")
        execution = scenes.running(turn)
        write(execution, *[(EventKind.TEXT, {"text": f"{number} "}) for number in range(1200)])
        scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="…")
        frames = socket.until(type="turn", state="replied")
        assert len(texts(frames)) == 1200

    def test_the_next_turn_begins_anew(self, browser, address, turn, eva):
        socket = browser.open(address)
        socket.next(type="sync")
        scenes.answer(turn, "One.")
        socket.next(type="turn", state="replied")
        said = scenes.say("More", account="web:ada", chat_id="c1", sender_id=str(eva.pk), person_id=eva.pk)
        following = Turn.objects.get(pk=said.turn_id)
        write(scenes.running(following), (EventKind.TEXT, {"text": "Two."}))
        frame = socket.next(type="event", kind="text")
        assert (frame["turn"], frame["seq"], frame["text"]) == (following.pk, 1, "Two.")

    def test_an_execution_that_takes_the_turn_over_is_told_from_its_beginning(self, chained, browser, address):
        first = chained
        socket = browser.open(address)
        socket.next(type="sync")
        turn = give_up(first)
        write(scenes.running(turn), (EventKind.TEXT, {"text": "Two."}))
        assert socket.next(type="turn", anew=True)["turn"] == turn.pk
        frame = socket.next(type="event", kind="text")
        assert (frame["seq"], frame["text"]) == (1, "Two.")

    def test_nothing_of_another_conversation(self, browser, address, turn, eva):
        other = scenes.say("Elsewhere", account="web:ada", chat_id="c2", sender_id=str(eva.pk), person_id=eva.pk)
        socket = browser.open(address)
        frames = socket.until(type="sync")
        assert other.turn_id not in {frame.get("turn") for frame in frames}


class TestComingBack:
    @pytest.fixture
    def execution(self, turn):
        execution = scenes.running(turn)
        write(execution, *[(EventKind.TEXT, {"text": f"{number} "}) for number in range(1, 6)])
        return execution

    def test_goes_on_after_what_the_page_has(self, browser, address, turn, execution):
        frames = browser.open(f"{address}?turn={turn.pk}&after=3").until(type="sync")
        assert texts(frames) == ["4 ", "5 "]
        assert frames[-1]["last_seq"] == 5

    def test_goes_on_in_the_execution_that_the_page_names(self, browser, address, turn, execution):
        frames = browser.open(f"{address}?turn={turn.pk}&execution={execution.pk}&after=3").until(type="sync")
        assert texts(frames) == ["4 ", "5 "]
        assert frames[-1]["execution"] == execution.pk

    def test_after_another_execution_took_the_turn_over_that_one_is_told_whole(self, chained, browser, address):
        turn = give_up(chained)
        write(scenes.running(turn), *[(EventKind.TEXT, {"text": text}) for text in ("Two", ", ", "then.")])
        frames = browser.open(f"{address}?turn={turn.pk}&execution={chained.pk}&after=2").until(type="sync")
        assert texts(frames) == ["Two", ", ", "then."]
        assert frames[0]["anew"]

    def test_between_two_executions_the_next_one_is_told_whole(self, chained, browser, address):
        turn = chained.turn
        refused = {"cause": Cause.USAGE_LIMIT, "retry_at": clock.now() + dt.timedelta(hours=1)}
        scenes.end(chained, ExecutionState.FAILED, OutcomeClass.LIMIT, **refused)
        socket = browser.open(f"{address}?turn={turn.pk}&after=2")
        socket.next(type="sync")
        conversation_actions.advance(turn.conversation_id)
        write(scenes.running(Turn.objects.get(pk=turn.pk)), (EventKind.TEXT, {"text": "Two."}))
        assert socket.next(type="event", kind="text")["text"] == "Two."

    def test_without_a_place_it_is_told_from_the_beginning(self, browser, address, execution):
        assert len(texts(browser.open(address).until(type="sync"))) == 5

    def test_a_place_in_an_older_turn_does_not_hide_the_new_one(self, browser, address, execution):
        frames = browser.open(f"{address}?turn=1234567&after=3").until(type="sync")
        assert len(texts(frames)) == 5

    @pytest.mark.parametrize("query", ["after=x", "after=-1", "turn=%00&after=" + "9" * 40, "after=٣"])
    def test_nonsense_in_the_address_is_no_place(self, browser, address, execution, query):
        assert len(texts(browser.open(f"{address}?{query}").until(type="sync"))) == 5


class TestStopping:
    def test_the_page_may_stop_a_turn(self, browser, address, turn):
        execution = scenes.running(turn)
        socket = browser.open(address)
        socket.next(type="sync")
        socket.send({"type": "stop", "turn": turn.pk})
        until(lambda: type(execution).objects.filter(pk=execution.pk, stop_requested_at__isnull=False).exists())

    def test_a_reader_may_not_and_learns_why(self, browser, address, turn, eva):
        Person.objects.filter(pk=eva.pk).update(roles=["viewer"])
        Turn.objects.filter(pk=turn.pk).update(person=None)
        socket = browser.open(address)
        socket.send({"type": "stop", "turn": turn.pk})
        assert socket.next(type="refused")["what"]
        assert Turn.objects.get(pk=turn.pk).state == TurnState.ADMITTED

    def test_a_turn_that_does_not_exist_is_no_accident(self, browser, address):
        socket = browser.open(address)
        socket.send({"type": "stop", "turn": 999999})
        assert socket.next(type="refused")["code"] == "not_found"

    def test_without_a_database_it_is_told_to_press_again(self, browser, address, turn, monkeypatch):
        def away(**_):
            raise OperationalError("the connection is lost")

        socket = browser.open(address)
        socket.next(type="sync")
        with monkeypatch.context() as outage:
            outage.setattr(conversation_actions, "stop_turn", away)
            socket.send({"type": "stop", "turn": turn.pk})
            told = socket.next(type="refused")
        assert (told["code"], told["turn"]) == ("database_away", turn.pk)
        assert "Try again" in told["next_step"]

        socket.send({"type": "stop", "turn": turn.pk})
        until(lambda: Turn.objects.get(pk=turn.pk).state == TurnState.STOPPED)

    @pytest.mark.parametrize("text", ["no json", "[]", '{"type": "stop"}', '{"type": "stop", "turn": "1; drop"}'])
    def test_nonsense_is_ignored(self, browser, address, turn, text):
        socket = browser.open(address)
        socket.send_text(text)
        socket.next(type="sync")
        assert Turn.objects.get(pk=turn.pk).state == TurnState.ADMITTED


def test_after_an_accident_nothing_of_it_goes_on(browser, address, turn, monkeypatch):
    def breaks(**_):
        raise RuntimeError("Nobody has thought of this.")

    socket = browser.open(address)
    socket.next(type="sync")
    assert browser.working()
    monkeypatch.setattr(conversation_actions, "stop_turn", breaks)
    socket.send({"type": "stop", "turn": turn.pk})
    with pytest.raises(RuntimeError):
        socket.leave()
    assert browser.working() == set()


def test_a_socket_that_is_left_leaves_nothing(browser, address, turn):
    scenes.running(turn)
    socket = browser.open(address)
    socket.next(type="sync")
    socket.leave()
    assert browser.working() == set()


def test_without_redis_it_opens_and_only_takes_longer(browser, address, turn, valkey, monkeypatch):
    monkeypatch.setattr(consumers.ChatConsumer, "BUSY_LOOK_SECONDS", 0.2)
    valkey.stop()
    try:
        socket = browser.open(address)
        socket.next(type="sync")
        execution = scenes.running(turn)
        write(execution, (EventKind.TEXT, {"text": "Still here."}))
        assert socket.next(type="event")["text"] == "Still here."
    finally:
        valkey.start()


def test_with_redis_nobody_waits_for_the_next_look(browser, address, turn, monkeypatch):
    """With its own looking switched off, only hints can bring the words."""
    monkeypatch.setattr(consumers.ChatConsumer, "BUSY_LOOK_SECONDS", 3600.0)
    execution = scenes.running(turn)
    socket = browser.open(address)
    socket.next(type="sync")
    until(lambda: heard_by_somebody(f"execution:{execution.pk}"))
    write(execution, (EventKind.TEXT, {"text": "By a hint."}))
    assert socket.next(type="event")["text"] == "By a hint."


def heard_by_somebody(topic):
    return redis.Redis.from_url(settings.REDIS_URL).pubsub_channels(f"*{live.group(topic)}")


def test_a_stopped_queue_is_told(browser, address, turn, eva):
    scenes.running(turn)
    waiting = scenes.say("Later", account="web:ada", chat_id="c1", sender_id=str(eva.pk), person_id=eva.pk)
    socket = browser.open(address)
    socket.next(type="turn", turn=waiting.turn_id, state="queued")
    conversation_actions.stop_turn(turn_id=waiting.turn_id, by=scenes.GATEWAY, reason="changed her mind")
    assert socket.next(type="turn", turn=waiting.turn_id, state="stopped")
