"""What did not arrive on the person's platform: shown in the conversation with its reason, and sent when an operator asks."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client
from django.utils import timezone

from conversations import actions as conversation_actions
from conversations.actions.outbox import settle_doubt
from conversations.models import Conversation, Delivery, Turn
from identities.models import Identity, Person
from tests.console.conftest import SignedIn
from tests.console.page import text_of
from tests.conversations import scenes
from tests.factories.gateways import GatewayAccountFactory

HTMX = {"HX-Request": "true"}


@pytest.fixture
def turn(ada: Identity, people: dict[str, Person]) -> Turn:
    """Ada has answered on Telegram, where her account is served."""
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    GatewayAccountFactory(identity=ada)
    return scenes.answer(scenes.turn_of(scenes.say()))


def reach(row: Delivery, *states: str, **fields: object) -> Delivery:
    """Let a delivery come to a state, step by step."""
    for state in states:
        Delivery.objects.filter(pk=row.pk).update(state=state, **fields)
    row.refresh_from_db()
    return row


def answer_of(turn: Turn) -> Delivery:
    """The delivery of the answer."""
    return turn.deliveries.get(kind="answer")


def test_a_withheld_answer_says_so_and_is_sent_when_asked(operator: Client, turn: Turn) -> None:
    Delivery.objects.update(created_at=timezone.now() - dt.timedelta(hours=25))
    settle_doubt()
    address = f"/chat/{turn.conversation_id}/"
    page = text_of(operator.get(address))
    assert "Withheld Not sent: it was older than 24 hours when its gateway came back." in page
    assert "Send now" in page

    row = answer_of(turn)
    fragment = operator.post(f"/chat/deliveries/{row.pk}/", headers=HTMX)

    assert "Not delivered yet" in text_of(fragment)
    assert "Send now" not in text_of(fragment)
    assert "every 5s" in fragment.content.decode()
    row.refresh_from_db()
    assert row.state == "pending"
    assert [found.pk for found in conversation_actions.claim_deliveries(["telegram:ada"])] == [row.pk]


@pytest.mark.parametrize(
    ("states", "fields", "offer", "words"),
    [
        (["sending", "failed"], {"sentence": "bot was blocked"}, "Send again", "Not delivered bot was blocked"),
        (["sending", "unknown"], {}, "Send again", "may or may not have arrived"),
        (["sending", "unknown"], {}, "Send again", "marked as possibly repeated"),
        (["sending", "failed"], {"doubtful": True}, "Send again", "marked as possibly repeated"),
        (["sending", "partial"], {"sentence": "chat is gone"}, "Send the rest", "Delivered in part chat is gone"),
    ],
)
def test_each_state_says_why_and_what_can_be_done(
    operator: Client, turn: Turn, states: list[str], fields: dict[str, object], offer: str, words: str
) -> None:
    row = reach(answer_of(turn), *states, **fields)
    page = text_of(operator.get(f"/chat/{turn.conversation_id}/"))
    assert words in page
    assert offer in page
    told = text_of(operator.post(f"/chat/deliveries/{row.pk}/", headers=HTMX))
    assert "Not delivered yet" in told


def test_what_arrived_or_is_under_way_offers_nothing(operator: Client, turn: Turn) -> None:
    address = f"/chat/{turn.conversation_id}/"
    assert "Not delivered yet" in text_of(operator.get(address))
    row = reach(answer_of(turn), "sending", "sent", sentence="an earlier trouble")
    page = text_of(operator.get(address))
    assert "Delivered" in page
    assert "an earlier trouble" not in page
    assert "Send " not in page.partition("Transcript")[2]
    told = operator.post(f"/chat/deliveries/{row.pk}/", headers=HTMX)
    assert "This message cannot be sent again." in text_of(told)


def test_a_viewer_sees_the_state_but_cannot_send(signed_in: SignedIn, turn: Turn) -> None:
    row = reach(answer_of(turn), "suppressed", sentence="Not sent: too old.")
    viewer = signed_in("viewer")
    page = text_of(viewer.get(f"/chat/{turn.conversation_id}/"))
    assert "Withheld Not sent: too old." in page
    assert "Send now" not in page
    assert viewer.post(f"/chat/deliveries/{row.pk}/").status_code == 403
    assert viewer.get(f"/chat/deliveries/{row.pk}/").status_code == 200
    row.refresh_from_db()
    assert row.state == "suppressed"


def test_where_the_bot_has_no_gateway_nothing_is_offered_and_asking_is_answered(
    operator: Client, turn: Turn, ada: Identity
) -> None:
    row = reach(answer_of(turn), "suppressed", sentence="Not sent: too old.")
    ada.gateway_accounts.update(state="off")
    assert "Send now" not in text_of(operator.get(f"/chat/{turn.conversation_id}/"))
    told = operator.post(f"/chat/deliveries/{row.pk}/", headers=HTMX)
    assert "Nobody would send this to Telegram now." in text_of(told)
    plain = operator.post(f"/chat/deliveries/{row.pk}/", follow=True)
    assert plain.redirect_chain[0][0] == f"/chat/{turn.conversation_id}/"
    assert "Nobody would send this to Telegram now." in text_of(plain)


def test_without_scripts_sending_leads_back_to_the_conversation(operator: Client, turn: Turn) -> None:
    row = reach(answer_of(turn), "suppressed")
    assert operator.post(f"/chat/deliveries/{row.pk}/").url == f"/chat/{turn.conversation_id}/"
    row.refresh_from_db()
    assert row.state == "pending"


def test_a_notice_of_a_turn_that_did_not_arrive_is_marked_at_its_words(operator: Client, turn: Turn) -> None:
    waiting = scenes.turn_of(scenes.say("Again"))
    scenes.running(waiting)
    later = scenes.turn_of(scenes.say("And then"))
    conversation_actions.stop_turn(turn_id=waiting.pk, by=scenes.GATEWAY, reason="test")
    execution = Turn.objects.get(pk=waiting.pk).execution
    scenes.end(execution, "stopped", "stopped", sentence="Stopped by Eva.")
    reach(waiting.deliveries.get(kind="notice"), "suppressed", sentence="Not sent: too old.")
    page = text_of(operator.get(f"/chat/{later.conversation_id}/"))
    assert page.partition("Stopped by Eva.")[2].index("Withheld Not sent: too old.") < 60


def test_a_command_s_answer_that_did_not_arrive_is_marked_where_it_stands(operator: Client, turn: Turn) -> None:
    for _ in range(2):
        scenes.say("/status")
    rows = list(Delivery.objects.filter(turn=None).order_by("pk"))
    assert len(rows) == 2
    reach(rows[1], "suppressed", sentence="Not sent: too old.")
    items = operator.get(f"/chat/{turn.conversation_id}/").context["page"].items
    marked = [number for number, item in enumerate(items) if item.delivery and item.delivery.id == rows[1].pk]
    assert marked == [len(items) - 1]
    assert not any(item.undelivered for item in items)


def test_a_refusal_that_stands_in_no_message_is_shown_with_its_words(operator: Client, turn: Turn) -> None:
    scenes.say("/nonsense")
    row = reach(Delivery.objects.get(turn=None), "suppressed", sentence="Not sent: too old.")
    page = text_of(operator.get(f"/chat/{turn.conversation_id}/"))
    assert "There is no command /nonsense." in page
    assert "Withheld Not sent: too old." in page
    assert "Send now" in page
    assert operator.post(f"/chat/deliveries/{row.pk}/").url == f"/chat/{turn.conversation_id}/"


def test_nothing_of_another_chat_is_shown(operator: Client, turn: Turn) -> None:
    scenes.say("/nonsense", chat_id="502")
    reach(Delivery.objects.get(turn=None), "suppressed", sentence="Not sent: too old.")
    assert "nonsense" not in text_of(operator.get(f"/chat/{turn.conversation_id}/"))


def test_whose_conversation_nobody_may_read_whose_delivery_nobody_finds(operator: Client, turn: Turn) -> None:
    row = answer_of(turn)
    assert operator.get(f"/chat/deliveries/{row.pk + 1000}/").status_code == 404
    Delivery.objects.filter(pk=row.pk).update(turn=None)
    Conversation.objects.update(chat_id="elsewhere")
    assert operator.get(f"/chat/deliveries/{row.pk}/").status_code == 404
