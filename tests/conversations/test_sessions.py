"""Sessions rotate after 4 hours idle, three failures in a row, or a changed binding; the person is told, the parent is kept."""

import datetime as dt

import pytest
import time_machine
from django.db import IntegrityError, transaction
from django.utils import timezone

from conversations import actions
from conversations.models import Conversation, Delivery, Message, Session
from execution.states import ExecutionState, OutcomeClass
from tests.conversations.scenes import WORKER, answer, end, running, say, turn_of


def test_the_second_turn_resumes_the_session_of_the_first(eva):
    first = answer(turn_of(say("Hello")))
    second = turn_of(say("Again"))
    assert second.session == first.session
    assert (first.execution.session_turns, second.execution.session_turns) == (0, 1)
    assert second.execution.session_id == first.execution.session_id


def test_a_session_idle_for_four_hours_is_replaced_and_the_person_is_told(eva):
    first = answer(turn_of(say("My cat is called Tom")))
    with time_machine.travel(timezone.now() + dt.timedelta(hours=4, minutes=1)):
        second = turn_of(say("Again"))
    assert second.session.parent == first.session
    assert Session.objects.get(pk=first.session_id).state == "rotated"
    assert "idle" in Message.objects.get(turn=second, author="system").text
    assert Delivery.objects.filter(turn=second, kind="notice").exists()


def test_the_new_session_begins_with_a_bounded_summary_of_the_old_one(eva):
    answer(turn_of(say("My cat is called Tom")), "A fine name. " + "x" * 5000)
    with time_machine.travel(timezone.now() + dt.timedelta(hours=5)):
        second = turn_of(say("What is my cat called?"))
    seed, question = second.execution.prompt
    assert "My cat is called Tom" in seed["text"] and question["text"] == "What is my cat called?"
    assert len(seed["text"]) < 5000


def test_the_summary_tells_nothing_of_what_still_waits(eva):
    """It would be asked twice."""
    answer(turn_of(say("My cat is called Tom")))
    second = running(turn_of(say("Two")))
    Conversation.objects.update(busy_mode="followup")
    third, _ = turn_of(say("Three")), say("Four")
    Session.objects.update(failures=2)
    end(second, ExecutionState.FAILED, OutcomeClass.ERROR, sentence="No.")
    actions.advance(third.conversation_id)
    third.refresh_from_db()
    seed, question = third.execution.prompt
    assert "My cat is called Tom" in seed["text"] and "Two" in seed["text"] and question["text"] == "Three"
    assert "Three" not in seed["text"] and "Four" not in seed["text"]


def test_just_under_four_hours_goes_on(eva):
    first = answer(turn_of(say("Hello")))
    with time_machine.travel(timezone.now() + dt.timedelta(hours=3, minutes=59)):
        assert turn_of(say("Again")).session == first.session


def test_three_failures_in_a_row_replace_the_session(eva):
    for number in range(3):
        turn = turn_of(say(f"Try {number}"))
        end(running(turn), ExecutionState.FAILED, OutcomeClass.ERROR, sentence="No.")
    fourth = turn_of(say("Once more"))
    assert fourth.session.parent == turn.session
    assert "failed 3 times" in fourth.session.parent.rotation_reason


def test_a_turn_that_never_began_leaves_the_summary_to_the_next(eva):
    answer(turn_of(say("My cat is called Tom")))
    with time_machine.travel(timezone.now() + dt.timedelta(hours=5)):
        actions.stop_turn(turn_id=say("Wait").turn_id, by=WORKER, reason="changed my mind")
        turn = turn_of(say("What is my cat called?"))
    assert "My cat is called Tom" in turn.execution.prompt[0]["text"]
    assert turn.execution.session_turns == 0


def test_new_forgets_what_was_said_and_nothing_else(eva):
    first = answer(turn_of(say("My cat is called Tom")))
    assert "new conversation" in say("/new").answer
    second = turn_of(say("What is my cat called?"))
    assert second.conversation == first.conversation
    assert second.execution.session_id != first.execution.session_id
    assert [entry["text"] for entry in second.execution.prompt] == ["What is my cat called?"]


def test_new_in_a_new_conversation_says_so(eva):
    assert "already" in say("/new").answer


def test_a_success_forgets_earlier_failures(eva):
    for number in range(2):
        end(running(turn_of(say(f"Try {number}"))), ExecutionState.FAILED, OutcomeClass.ERROR, sentence="No.")
    turn = answer(turn_of(say("Works")))
    assert Session.objects.get(pk=turn.session_id).failures == 0


def test_a_changed_bot_gets_a_new_session(eva, ada):
    first = answer(turn_of(say("Hello")))
    ada.title = "Chief of staff"
    ada.save(update_fields=["title"])
    second = turn_of(say("Again"))
    assert second.session.parent == first.session
    assert "changed" in second.session.parent.rotation_reason


def test_a_conversation_has_one_open_session_and_the_database_knows(eva):
    session = answer(turn_of(say("Hello"))).session
    with pytest.raises(IntegrityError), transaction.atomic():
        Session.objects.create(
            conversation=session.conversation, provider="mock", provider_session_id="x", model="m", binding="b"
        )


def test_a_providers_session_belongs_to_one_conversation(eva) -> None:
    known = turn_of(say("Hello")).session
    other = Conversation.objects.create(account="web:ada", chat_id="c9", identity=known.conversation.identity)
    with pytest.raises(IntegrityError, match="session_of_one_conversation"):
        Session.objects.create(
            conversation=other, provider="mock", provider_session_id=known.provider_session_id, model="m", binding="b"
        )
