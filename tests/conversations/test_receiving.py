"""The inbox: a row first, then everything else."""

import threading

import pytest
from django.db import connection

from conversations import actions
from conversations.models import Delivery, InboundMessage
from conversations.policies import MAX_TEXT_BYTES
from fleet.kernel.exceptions import StateConflict
from fleet.kernel.models import JournalEntry
from governance.models import GateDecision
from tests.conversations.scenes import GATEWAY, message, say

pytestmark = pytest.mark.django_db


def test_a_message_is_stored_before_anything_else_is_known_about_it():
    received = actions.receive(message("Hello", identity_slug="nobody"), by=GATEWAY)
    row = InboundMessage.objects.get(pk=received.inbound_id)
    assert (row.state, row.text, row.identity_slug) == ("received", "Hello", "nobody")
    assert JournalEntry.objects.filter(event="conversations.message.received", subject_id=str(row.pk)).exists()


def test_the_same_event_again_is_the_same_row():
    said = message("Hello")
    first, second = actions.receive(said, by=GATEWAY), actions.receive(said, by=GATEWAY)
    assert (second.inbound_id, second.duplicate) == (first.inbound_id, True)
    assert InboundMessage.objects.count() == 1


def test_the_same_event_with_another_body_is_refused_and_changes_nothing():
    actions.receive(message("Pay 10", event_id="key-1"), by=GATEWAY)
    with pytest.raises(StateConflict) as refused:
        actions.receive(message("Pay 1000", event_id="key-1"), by=GATEWAY)
    assert refused.value.code == "idempotency_mismatch"
    assert [row.text for row in InboundMessage.objects.all()] == ["Pay 10"]


def test_one_event_id_may_come_from_two_accounts():
    actions.receive(message(event_id="7"), by=GATEWAY)
    assert not actions.receive(message(event_id="7", account="telegram:ben"), by=GATEWAY).duplicate


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("  \n\t ", "empty"),
        ("x" * (1024 * 1024), "too_long"),
        ("é" * (MAX_TEXT_BYTES // 2 + 1), "too_long"),
        ("broken \udc80 text", "unreadable"),
        ("a\x00b", "unreadable"),
    ],
    ids=["empty", "blank", "1 MB", "one character over", "broken UTF-8", "NUL"],
)
def test_a_text_no_bot_can_answer_is_stored_refused_and_explained(text, code):
    received = actions.receive(message(text), by=GATEWAY)
    row = InboundMessage.objects.get(pk=received.inbound_id)
    assert (row.state, row.refusal["code"]) == ("refused", code)
    assert row.refusal["next_step"]
    assert len(row.text.encode()) <= MAX_TEXT_BYTES
    assert GateDecision.objects.get().reason_code == code
    notice = Delivery.objects.get()
    assert (notice.state, notice.chat_id, notice.kind) == ("pending", "501", "notice")
    assert row.refusal["next_step"] in notice.text


def test_the_longest_allowed_text_is_taken(eva):
    assert say("x" * MAX_TEXT_BYTES).kind == "turn"


@pytest.mark.django_db(transaction=True)
def test_ten_threads_with_one_event_store_it_once():
    said, results = message("Hello"), []

    def receive() -> None:
        try:
            results.append(actions.receive(said, by=GATEWAY))
        finally:
            connection.close()

    threads = [threading.Thread(target=receive) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10
    assert sorted(result.duplicate for result in results) == [False] + [True] * 9
    assert InboundMessage.objects.count() == 1
