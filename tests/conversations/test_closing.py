"""A turn closes in one transaction with everything it owns."""

import pytest
from django.db import IntegrityError, transaction

from budgets.models import Reservation
from conversations.models import Delivery, Message, Session, Turn
from execution.states import ExecutionState, OutcomeClass
from fleet.kernel.models import JournalEntry
from tests.conversations.scenes import answer, end, operator, running, say, turn_of


def test_an_answer_closes_turn_execution_reservation_message_and_delivery_together(eva):
    turn = answer(turn_of(say("Hello")), "Good day.")
    assert turn.state == "replied" and turn.ended_at
    assert turn.execution.state == "succeeded"
    assert Reservation.objects.get().state == "settled"
    assert Message.objects.get(turn=turn, author="bot").text == "Good day."
    assert Delivery.objects.get(turn=turn, kind="answer").state == "pending"


def test_the_turn_runs_from_the_moment_the_gate_opens(eva):
    turn = turn_of(say("Hello"))
    running(turn)
    turn.refresh_from_db()
    assert turn.state == "running"


@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [
        (ExecutionState.FAILED, OutcomeClass.OVERLOAD, "failed"),
        (ExecutionState.STOPPED, OutcomeClass.STOPPED, "stopped"),
        (ExecutionState.LOST, OutcomeClass.LOST, "interrupted"),
    ],
)
def test_an_end_without_an_answer_tells_the_person_why(eva, state, outcome, expected):
    turn = turn_of(say("Hello"))
    end(running(turn), state, outcome, sentence="The provider is overloaded. Send it again in a minute.")
    turn.refresh_from_db()
    assert (turn.state, turn.sentence) == (expected, "The provider is overloaded. Send it again in a minute.")
    assert Delivery.objects.get(turn=turn).kind == "notice"
    assert Message.objects.get(turn=turn, author="system").text == turn.sentence


def test_a_turn_cut_short_keeps_what_was_said_and_says_why_it_ended(eva):
    turn = turn_of(say("Hello"))
    end(running(turn), ExecutionState.STOPPED, OutcomeClass.STOPPED, answer="Half a", sentence="Stopped by eva.")
    kinds = list(Delivery.objects.filter(turn=turn).order_by("pk").values_list("kind", "text"))
    assert kinds == [("answer", "Half a"), ("notice", "Stopped by eva.")]


def test_what_is_still_true_after_the_answer_is_said_before_it(eva):
    turn = turn_of(say("Hello"))
    notice = "The earlier part of this conversation is not on this machine any more, so I start afresh."
    end(
        running(turn),
        ExecutionState.SUCCEEDED,
        OutcomeClass.OK,
        answer="Good day.",
        fields={"details": {"told": [notice]}},
    )
    told = [("notice", notice), ("answer", "Good day.")]
    assert list(Delivery.objects.filter(turn=turn).order_by("pk").values_list("kind", "text")) == told
    assert [message.text for message in Message.objects.filter(turn=turn).exclude(author="person").order_by("pk")] == [
        notice,
        "Good day.",
    ]


def test_a_turn_has_one_answer_and_the_database_knows(eva):
    turn = answer(turn_of(say("Hello")))
    with pytest.raises(IntegrityError), transaction.atomic():
        Delivery.objects.create(turn=turn, account="telegram:ada", chat_id="501", kind="answer", text="Again")


def test_answers_to_pages_terminals_and_programs_are_delivered_by_being_stored(ada):
    person = operator("otto")
    turn = turn_of(say("Hello", account="web:ada", sender_id="1", person_id=person.pk))
    answer(turn)
    assert Delivery.objects.get(turn=turn).state == "sent"


def test_the_story_of_a_turn_stands_in_the_journal(eva):
    turn = answer(turn_of(say("Hello")))
    told = JournalEntry.objects.filter(subject_kind="turn", subject_id=str(turn.pk)).order_by("pk")
    assert list(told.values_list("event", flat=True)) == [
        "conversations.turn.admitted",
        "conversations.turn.running",
        "conversations.turn.closed",
    ]


def test_a_refused_admission_leaves_no_money_held_and_no_session(eva, ada):
    type(ada).objects.filter(pk=ada.pk).update(state="paused")
    turn = turn_of(say("Hello"))
    assert turn.state == "refused"
    assert not Reservation.objects.exists() and not Session.objects.exists()
    assert Turn.objects.get().ended_at
