"""The gateway process and Telegram, from a person's message to the answer on their screen."""

from __future__ import annotations

from conversations.models import Delivery, InboundMessage, Turn
from tests.conversations import scenes
from tests.gateways.running import until


def test_a_message_becomes_a_turn_and_its_answer_a_message(telegram, ada_on_telegram, eva, gateways):
    gateways.start()
    said = telegram.person(501, "Eva").send(ada_on_telegram, "Hello Ada")

    turn = until(lambda: Turn.objects.filter(execution__isnull=False).first())
    said.wait_confirmed()
    scenes.answer(turn, "Good *day*, Eva.")
    reply = telegram.person(501, "Eva").wait_for_reply(said)

    assert reply.text == "Good day, Eva."
    assert reply.payload["entities"] == [{"type": "italic", "offset": 5, "length": 3}]
    assert InboundMessage.objects.get().text == "Hello Ada"
    delivery = until(lambda: Delivery.objects.filter(state="sent").first())
    assert delivery.receipts == [str(reply.message_id)]
