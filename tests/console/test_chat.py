"""Conversations in the console: what can be read, what can be said, and what happens to words that are refused."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.test import Client

from conversations.models import Conversation, InboundMessage, Message, Turn
from execution import actions as execution_actions
from execution.actions import recording
from execution.models import Execution
from execution.states import EventKind, ExecutionState, OutcomeClass
from fleet.api.serializers import ReceiptSerializer
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from identities.models import Identity, Person
from tests.console.conftest import SignedIn
from tests.console.page import text_of
from tests.conversations import scenes

BY = Actor.system("test")
pytestmark = pytest.mark.usefixtures("ada", "people")


def begin(client: Client, text: str = "Hello", **fields: str) -> Conversation:
    """Start a chat with Ada from the page and return its conversation."""
    body = {"bot": "ada", "place": str(uuid.uuid4()), "key": str(uuid.uuid4()), "text": text, **fields}
    response = client.post("/chat/new/", body)
    assert response.status_code == 302, text_of(response)
    return Conversation.objects.get(pk=int(response.url.rstrip("/").rsplit("/", 1)[1]))


def test_the_first_message_makes_the_conversation_and_leads_to_it(operator: Client) -> None:
    assert "Say hello to Ada" in text_of(operator.get("/chat/new/?bot=ada"))
    assert not Conversation.objects.exists()

    talk = begin(operator, "How was the quarter?")

    page = text_of(operator.get(f"/chat/{talk.pk}/"))
    assert "How was the quarter?" in page
    assert "Waiting for a free worker" in page
    assert talk.account == "web:ada"


def test_sending_again_with_the_same_key_says_it_once(operator: Client) -> None:
    place, key = str(uuid.uuid4()), str(uuid.uuid4())
    first = begin(operator, place=place, key=key)
    second = begin(operator, place=place, key=key)
    assert first == second
    assert Message.objects.filter(author="person").count() == 1


def test_a_message_goes_into_its_conversation_and_the_page_fetches_it(operator: Client) -> None:
    talk = begin(operator)
    response = operator.post(
        f"/chat/{talk.pk}/messages/", {"key": str(uuid.uuid4()), "text": "And now?"}, headers={"HX-Request": "true"}
    )
    assert response.status_code == 204
    last = Message.objects.order_by("pk").first()
    fragment = operator.get(f"/chat/{talk.pk}/messages/?after={last.pk}", headers={"HX-Request": "true"})
    assert "And now?" in text_of(fragment)
    assert "Hello" not in text_of(fragment)
    assert b"<html" not in fragment.content
    assert "HX-Request" in fragment["Vary"]


def test_without_scripts_sending_leads_back_to_the_conversation(operator: Client) -> None:
    talk = begin(operator)
    response = operator.post(f"/chat/{talk.pk}/messages/", {"key": str(uuid.uuid4()), "text": "And now?"})
    assert response.url == f"/chat/{talk.pk}/"


@pytest.mark.parametrize("text", ["", "   \n ", "x" * 16_001, "/nonsense"])
def test_words_that_are_refused_come_back_with_the_reason(operator: Client, text: str) -> None:
    talk = begin(operator)
    response = operator.post(f"/chat/{talk.pk}/messages/", {"key": str(uuid.uuid4()), "text": text})
    assert response.status_code == 422
    assert text.strip() in response.content.decode()
    assert 'id="composer-error"' in response.content.decode()
    assert Message.objects.filter(author="person").count() == 1


def test_an_answer_is_shown_as_markdown_with_its_tools_and_what_it_took(operator: Client) -> None:
    talk = begin(operator)
    turn = Turn.objects.get(conversation=talk)
    execution = scenes.running(turn)
    lines = [
        (EventKind.TOOL_STARTED, {"call": "c1", "tool": "Read", "target": "notes/q3.md"}),
        (EventKind.TOOL_FINISHED, {"call": "c1", "ok": True, "summary": "12 lines"}),
    ]
    recording.record_events(execution=execution, first_sequence=recording.next_sequence(execution), lines=lines)
    scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="It went **well**.")

    response = operator.get(f"/chat/{talk.pk}/")

    assert "<strong>well</strong>" in response.content.decode()
    page = text_of(response)
    assert "Done Read notes/q3.md" in page
    assert "Model claude-haiku-4-5" in page or "Model mock-1" in page
    assert "Stop" not in page.partition("Transcript")[2]


def test_the_waiting_on_a_receipt_begins_with_the_message_as_in_the_api(operator: Client) -> None:
    turn = Turn.objects.get(conversation=begin(operator))
    execution = scenes.running(turn)
    scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Hello!")
    Execution.objects.filter(pk=execution.pk).update(
        queued_at=turn.created_at + dt.timedelta(seconds=90), released_at=turn.created_at + dt.timedelta(seconds=93)
    )
    execution.refresh_from_db()
    assert ReceiptSerializer(execution).data["queue_ms"] == 93_000
    assert "Waited 1 m 33 s" in text_of(operator.get(f"/chat/{turn.conversation_id}/"))


def test_a_denied_tool_call_says_why(operator: Client) -> None:
    talk = begin(operator)
    execution = scenes.running(Turn.objects.get(conversation=talk))
    lines = [
        (EventKind.TOOL_STARTED, {"call": "c1", "tool": "Bash", "target": "rm -r notes"}),
        (
            EventKind.TOOL_DENIED,
            {"call": "c1", "tool": "Bash", "target": "rm -r notes", "reason": "Nobody granted it."},
        ),
        (EventKind.TOOL_FINISHED, {"call": "c1", "ok": False, "summary": "refused"}),
    ]
    recording.record_events(execution=execution, first_sequence=recording.next_sequence(execution), lines=lines)
    page = text_of(operator.get(f"/chat/{talk.pk}/"))
    assert "Denied Bash rm -r notes" in page
    assert "Nobody granted it." in page


@pytest.mark.parametrize("order", ["start deny", "deny start", "start deny end", "start end deny"])
def test_a_refused_call_reads_denied_from_the_moment_it_is_refused(operator: Client, order: str) -> None:
    talk = begin(operator)
    execution = scenes.running(Turn.objects.get(conversation=talk))
    call = {"call": "c1", "tool": "Bash", "target": "ls"}
    told = {
        "start": (EventKind.TOOL_STARTED, call),
        "deny": (EventKind.TOOL_DENIED, {**call, "reason": "Nobody granted it."}),
        "end": (EventKind.TOOL_FINISHED, {"call": "c1", "ok": False, "summary": "failed"}),
    }
    lines = [told[name] for name in order.split()]
    recording.record_events(execution=execution, first_sequence=recording.next_sequence(execution), lines=lines)

    response = operator.get(f"/chat/{talk.pk}/")

    assert "Denied Bash ls" in text_of(response)
    assert "Nobody granted it." in text_of(response)
    assert "data-denied" in response.content.decode()


def test_what_a_running_turn_has_written_so_far_survives_a_reload(operator: Client) -> None:
    talk = begin(operator)
    execution = scenes.running(Turn.objects.get(conversation=talk))
    lines = [
        (EventKind.TEXT, {"text": "First "}),
        (EventKind.TEXT, {"text": "<b>words</b>"}),
        (EventKind.TOOL_STARTED, {"call": "c1", "tool": "Bash", "target": "ls"}),
    ]
    recording.record_events(execution=execution, first_sequence=recording.next_sequence(execution), lines=lines)

    response = operator.get(f"/chat/{talk.pk}/")

    page = response.content.decode()
    assert "First &lt;b&gt;words&lt;/b&gt;" in page
    assert "Running tool Bash" in page
    assert f'data-execution="{execution.pk}" data-sequence="{recording.next_sequence(execution) - 1}"' in page
    assert "Stop" in text_of(response)


def test_a_refused_turn_says_why_and_what_to_do(operator: Client) -> None:
    governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="Wrong prices", by=BY)
    talk = begin(operator)
    page = text_of(operator.get(f"/chat/{talk.pk}/"))
    assert "Refused" in page
    assert "Wrong prices" in page
    assert "Next:" in page


def test_a_failed_turn_says_so_in_a_sentence(operator: Client) -> None:
    talk = begin(operator)
    execution = scenes.running(Turn.objects.get(conversation=talk))
    scenes.end(execution, ExecutionState.FAILED, OutcomeClass.OVERLOAD, sentence="The model is overloaded.")
    page = text_of(operator.get(f"/chat/{talk.pk}/"))
    assert "Failed The model is overloaded." in page


def test_a_waiting_turn_knows_its_place_and_can_be_stopped(operator: Client) -> None:
    talk = begin(operator)
    scenes.running(Turn.objects.get(conversation=talk))
    operator.post(f"/chat/{talk.pk}/messages/", {"key": str(uuid.uuid4()), "text": "Second"})
    waiting = Turn.objects.get(conversation=talk, state="queued")
    assert "Position 1 in this conversation" in text_of(operator.get(f"/chat/{talk.pk}/"))

    assert operator.post(f"/chat/turns/{waiting.pk}/stop/").url == f"/chat/{talk.pk}/"

    waiting.refresh_from_db()
    assert waiting.state == "stopped"
    assert "Stopped before it began" in text_of(operator.get(f"/chat/{talk.pk}/"))


def test_a_long_conversation_is_read_in_pages(operator: Client, ada: Identity) -> None:
    talk = begin(operator)
    Message.objects.bulk_create(
        Message(conversation=talk, author="bot", name="Ada", text=f"Answer {number:03}") for number in range(70)
    )
    newest = text_of(operator.get(f"/chat/{talk.pk}/"))
    assert "Answer 069" in newest
    assert "Answer 039" not in newest

    response = operator.get(f"/chat/{talk.pk}/")
    older = response.context["page"].older
    page = operator.get(f"/chat/{talk.pk}/?before={older}")
    assert "Answer 039" in text_of(page)
    assert "Answer 040" not in text_of(page)
    assert "Newest messages" in text_of(page)
    fragment = operator.get(f"/chat/{talk.pk}/messages/?before={older}", headers={"HX-Request": "true"})
    assert "Answer 039" in text_of(fragment)


def test_somebody_elses_conversation_can_be_followed_but_not_joined(operator: Client, signed_in: SignedIn) -> None:
    talk = begin(operator)
    admin = signed_in("admin")
    page = text_of(admin.get(f"/chat/{talk.pk}/"))
    assert "somebody else’s conversation" in page
    response = admin.post(f"/chat/{talk.pk}/messages/", {"key": str(uuid.uuid4()), "text": "Hi"})
    assert response.status_code == 403
    assert Message.objects.filter(author="person").count() == 1


@pytest.mark.parametrize("mode", ["collect", "followup", "steer", "interrupt"])
def test_who_speaks_in_a_conversation_decides_how_it_treats_messages_that_find_the_bot_busy(
    operator: Client, mode: str
) -> None:
    talk = begin(operator)
    assert "While busy: Collect" in text_of(operator.get(f"/chat/{talk.pk}/"))
    operator.post(f"/chat/{talk.pk}/busy/", {"mode": mode})
    talk.refresh_from_db()
    assert talk.busy_mode == mode
    page = operator.get(f"/chat/{talk.pk}/").content.decode()
    assert f'value="{mode}" aria-current="true"' in page


def test_nobody_else_decides_that_but_who_may_change_the_bot(operator: Client, signed_in: SignedIn) -> None:
    talk = begin(operator)
    approver, admin = signed_in("approver"), signed_in("admin")
    assert "While busy" not in text_of(approver.get(f"/chat/{talk.pk}/"))
    refused = approver.post(f"/chat/{talk.pk}/busy/", {"mode": "steer"})
    assert refused.status_code == 403
    assert "somebody else’s conversation" in text_of(refused)
    admin.post(f"/chat/{talk.pk}/busy/", {"mode": "steer"})
    talk.refresh_from_db()
    assert talk.busy_mode == "steer"


def test_a_word_that_is_no_mode_changes_nothing(operator: Client) -> None:
    talk = begin(operator)
    assert operator.post(f"/chat/{talk.pk}/busy/", {"mode": "quickly"}).status_code == 400
    talk.refresh_from_db()
    assert talk.busy_mode == "collect"


def test_a_message_that_the_running_turn_took_stands_in_the_transcript_with_a_note(operator: Client) -> None:
    talk = begin(operator)
    execution = scenes.running(Turn.objects.get(conversation=talk))
    operator.post(f"/chat/{talk.pk}/busy/", {"mode": "steer"})
    operator.post(f"/chat/{talk.pk}/messages/", {"key": str(uuid.uuid4()), "text": "And of dogs."})
    offer = execution_actions.hand(execution=execution, by=scenes.WORKER)
    execution_actions.take_offer(execution=execution, offer=offer, by=scenes.WORKER)
    page = text_of(operator.get(f"/chat/{talk.pk}/"))
    assert page.index("And of dogs.") < page.index("I take this into what I am working on.")
    assert "Position" not in page


def test_a_telegram_conversation_is_answered_on_telegram(operator: Client, people: dict[str, Person]) -> None:
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    scenes.say("Hello from the train")
    talk = Conversation.objects.get(account="telegram:ada")
    page = text_of(operator.get(f"/chat/{talk.pk}/"))
    assert "Hello from the train" in page
    assert "takes place on Telegram" in page
    assert "<textarea" not in operator.get(f"/chat/{talk.pk}/").content.decode()


def test_an_answer_says_how_far_it_got_on_its_way(operator: Client, people: dict[str, Person]) -> None:
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    turn = scenes.answer(scenes.turn_of(scenes.say()))
    address = f"/chat/{turn.conversation_id}/"
    assert "Not delivered yet" in text_of(operator.get(address))
    turn.deliveries.filter(kind="answer").update(state="sending")
    turn.deliveries.filter(kind="answer").update(state="unknown")
    assert "Delivery unknown" in text_of(operator.get(address))


def test_one_message_can_be_fetched_alone(operator: Client) -> None:
    talk = begin(operator, "Hello there")
    message = Message.objects.get()
    assert "Hello there" in text_of(operator.get(f"/chat/{talk.pk}/messages/{message.pk}/"))
    assert operator.get(f"/chat/{talk.pk}/messages/{message.pk + 1}/").status_code == 404


def test_a_viewer_reads_and_does_not_talk(operator: Client, signed_in: SignedIn) -> None:
    talk = begin(operator)
    viewer = signed_in("viewer")
    assert viewer.get(f"/chat/{talk.pk}/").status_code == 200
    assert viewer.get("/chat/new/?bot=ada").status_code == 403
    assert viewer.post(f"/chat/turns/{Turn.objects.get().pk}/stop/").status_code == 403
    assert "New chat" not in text_of(viewer.get("/chat/"))


def test_the_list_shows_the_latest_conversation_first_page_by_page(operator: Client, ada: Identity) -> None:
    for number in range(33):
        begin(operator, f"Talk {number:02}")
    first = operator.get("/chat/")
    assert "Talk 32" in text_of(first)
    assert "Talk 02" not in text_of(first)
    following = operator.get(first.context["pager"]["next_url"])
    assert "Talk 02" in text_of(following)
    assert "Talk 03" not in text_of(following)
    assert operator.get("/chat/?before=nonsense").status_code == 400


def test_a_bot_nobody_knows_is_not_found(operator: Client) -> None:
    assert operator.get("/chat/new/?bot=nobody").status_code == 404
    assert operator.get("/chat/999999/").status_code == 404
    assert not InboundMessage.objects.exists()
