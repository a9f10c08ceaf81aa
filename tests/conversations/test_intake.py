"""Intake: from a stored message to a person, a conversation, and a command or a turn."""

import datetime as dt

import pytest

from conversations import actions
from conversations.models import Conversation, Delivery, InboundMessage, Message, Turn
from execution.models import Execution
from governance.models import GateDecision
from identities import actions as identity_actions
from identities.models import ChatAccount, Identity, Person
from tests.conversations.scenes import GATEWAY, answer, bot, message, operator, running, say, turn_of


def test_a_message_to_an_idle_lane_starts_at_once(eva):
    turn = turn_of(say("How are you?"))
    assert (turn.state, turn.person, turn.conversation.title) == ("admitted", eva, "How are you?")
    assert turn.execution.state == "queued"
    assert [text["text"] for text in turn.execution.prompt] == ["How are you?"]
    assert GateDecision.objects.filter(gate="admitted", origin_id=str(turn.pk)).exists()


def test_processing_again_tells_what_became_of_the_message_and_does_nothing_else(eva):
    received = actions.receive(message("Hello"), by=GATEWAY)
    first, second = actions.process(received.inbound_id), actions.process(received.inbound_id)
    assert first == second
    assert Turn.objects.count() == Execution.objects.count() == 1


def test_a_stranger_is_told_how_to_pair_and_nothing_runs(ada):
    intake = say("Hello", sender_id="999")
    assert (intake.kind, intake.refusal["code"]) == ("refused", "unpaired")
    assert "/pair" in Delivery.objects.get().text
    assert not Turn.objects.exists()


def test_the_sender_is_known_by_number_and_never_by_name(eva):
    assert say("Hello", sender_id="999", sender_name="Eva").refusal["code"] == "unpaired"


def test_an_unknown_bot_is_refused(eva):
    assert say("Hello", identity_slug="zoe").refusal["code"] == "unknown_bot"


@pytest.mark.parametrize("state", ["draft", "paused", "retired"])
def test_a_bot_that_takes_no_messages_says_so(eva, state):
    Identity.objects.create(slug="zoe", name="Zoe", state=state)
    turn = turn_of(say("Hello", identity_slug="zoe"))
    assert (turn.state, turn.execution) == ("refused", None)
    assert "Zoe" in turn.sentence and turn.next_step


def test_a_person_without_the_right_to_talk_is_refused(ada):
    viewer = Person.objects.create_user(username="vic", roles=["viewer"])
    ChatAccount.objects.create(platform="telegram", external_id="502", person=viewer)
    assert say("Hello", sender_id="502", chat_id="502").refusal["code"] == "no_right"


def test_a_person_who_was_switched_off_is_refused(eva):
    Person.objects.filter(pk=eva.pk).update(is_active=False)
    assert say("Hello").refusal["code"] == "account_off"


def test_an_adapter_that_knows_the_person_needs_no_pairing(ada):
    person = operator("otto")
    turn = turn_of(say("Hello", account="web:ada", sender_id=str(person.pk), person_id=person.pk))
    assert turn.person == person


def test_help_needs_no_pairing_and_lists_only_what_may_be_used(ada):
    intake = say("/help", sender_id="999")
    assert intake.kind == "command"
    assert "/pair" in intake.answer and "/stop" not in intake.answer


def test_an_unknown_command_is_refused_with_the_way_out(eva):
    intake = say("/teleport now")
    assert (intake.kind, intake.refusal["code"]) == ("refused", "unknown_command")
    assert "/help" in intake.refusal["next_step"]


@pytest.mark.parametrize("text", ["//compact", "/etc/passwd please", " /help", "/", "5 / 3"])
def test_a_text_that_only_looks_like_a_command_is_a_message(eva, text):
    assert say(text).kind == "turn"


def test_a_command_for_this_bot_in_a_group_is_understood(eva):
    assert say("/help@ada_bot").kind == "command"


def test_pairing_connects_the_account_with_the_person_who_made_the_code(ada):
    person = operator("otto")
    code, _ = identity_actions.issue_pairing_code(person=person, by=GATEWAY)
    assert say(f"/pair {code}", sender_id="777").kind == "command"
    assert turn_of(say("Hello", sender_id="777")).person == person


def test_a_wrong_code_is_refused_and_stored(ada):
    assert say("/pair AAAAAAAA", sender_id="777").kind == "refused"
    assert not ChatAccount.objects.exists()


def test_a_command_is_answered_at_once_while_a_turn_runs(eva):
    running(turn_of(say("Think for long")))
    assert say("/status").kind == "command"


def test_each_message_and_command_appears_in_the_conversation(eva):
    say("Hello")
    say("/status")
    conversation = Conversation.objects.get()
    authors = list(Message.objects.filter(conversation=conversation).order_by("pk").values_list("author", flat=True))
    assert authors == ["person", "person", "system"]


def test_two_bots_in_one_chat_have_two_conversations(eva):
    bot("ben")
    say("Hello")
    say("Hello", identity_slug="ben", account="telegram:ben")
    assert Conversation.objects.count() == 2


def test_the_reply_goes_where_the_question_came_from(eva):
    turn = turn_of(say("Hello", chat_id="-100", thread_id="7", message_id="55"))
    answer(turn, "Good day.")
    reply = Delivery.objects.get(kind="answer")
    place = (reply.account, reply.chat_id, reply.thread_id, reply.reply_to, reply.text)
    assert place == ("telegram:ada", "-100", "7", "55", "Good day.")


def test_the_sweep_finds_a_message_that_was_stored_and_then_forgotten(eva, monkeypatch):
    received = actions.receive(message("Hello"), by=GATEWAY)
    monkeypatch.setattr("conversations.actions.sweeping.LEFT_LYING", dt.timedelta(seconds=-1))
    actions.sweep()
    assert InboundMessage.objects.get(pk=received.inbound_id).state == "taken"


def test_a_message_that_cannot_be_handled_does_not_hold_up_the_others(eva, monkeypatch):
    poison, other = (actions.receive(message(text), by=GATEWAY).inbound_id for text in ("poison", "Hello"))
    process = actions.process

    def stumble(inbound_id):
        if inbound_id == poison:
            raise ValueError("nobody thought of this")
        return process(inbound_id)

    monkeypatch.setattr("conversations.actions.sweeping.process", stumble)
    monkeypatch.setattr("conversations.actions.sweeping.LEFT_LYING", dt.timedelta(seconds=-1))
    actions.sweep()
    states = dict(InboundMessage.objects.values_list("pk", "state"))
    assert states == {poison: "received", other: "taken"}
