"""PostgreSQL and Redis go away under the gateway, and come back."""

# ruff: noqa: F811 - fixtures are asked for by their names
from __future__ import annotations

import pytest
from django.db import connection

from conversations import actions as conversation_actions
from conversations.models import Delivery, InboundMessage, Turn
from conversations.states import DeliveryKind, DeliveryState
from fleet.kernel import live
from fleet.kernel.actors import Actor
from gateways.telegram import sender
from tests.conversations import scenes
from tests.gateways.cast import ada, ada_on_telegram, eva, eva_talks, gateway, gateways, telegram  # noqa: F401 - fixtures
from tests.gateways.running import until

pytestmark = pytest.mark.stack


def test_a_restart_of_postgresql_while_polling_costs_nothing(
    telegram, ada_on_telegram, eva, eva_talks, gateways, postgres
):
    gateway = gateways.start()
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    connection.close()
    postgres.stop()
    said = [eva_talks.send(ada_on_telegram, f"message {number}") for number in range(3)]
    gateway.wait_for("telegram.not_stored")  # its patience is at an end
    assert all(one.times().confirmed is None for one in said)
    postgres.start()
    connection.close_pool()  # this process's own pool waits ever longer between its attempts

    for one in said:
        one.wait_confirmed()
    until(lambda: InboundMessage.objects.filter(text__startswith="message", state="taken").count() == 3)
    scenes.answer(Turn.objects.get(execution__isnull=False), "All of them.")
    eva_talks.wait_for_reply(said[2], contains="All of them.")
    assert InboundMessage.objects.filter(text__startswith="message").count() == 3
    assert gateway.process.poll() is None


def test_a_receipt_outlives_a_database_that_is_away(telegram, ada_on_telegram, eva_talks, gateways, postgres):
    """Telegram took the message while PostgreSQL was down: it is not sent again."""
    gateway = gateways.start()
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    until(lambda: not Delivery.objects.exclude(state=DeliveryState.SENT).exists())
    sending = telegram.fault("sendMessage", hold=True)
    delivery = conversation_actions.deliver(
        account="telegram:ada", chat_id="501", kind=DeliveryKind.NOTICE, text="Once.", by=Actor.system("test")
    )
    sending.wait_hit()
    connection.close()
    postgres.stop()
    sending.release()
    gateway.wait_for("telegram.report_postponed")
    postgres.start()
    connection.close_pool()  # this process's own pool waits ever longer between its attempts
    until(lambda: Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.SENT).exists())
    assert [message.text for message in telegram.sent()[1:]] == ["Once."]


def test_without_redis_answers_still_arrive(telegram, ada_on_telegram, eva, eva_talks, gateways, valkey):
    process = gateways.start().process
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    valkey.stop()
    try:
        said = eva_talks.send(ada_on_telegram, "Hello")
        scenes.answer(until(lambda: Turn.objects.filter(execution__isnull=False).first()), "Still here.")
        assert eva_talks.wait_for_reply(said).text == "Still here."
    finally:
        valkey.start()
    assert process.poll() is None


def test_after_redis_came_back_hints_arrive_again(telegram, ada_on_telegram, eva_talks, monkeypatch, request, valkey):
    """With the sender's own looking switched off, only a hint can bring something out."""
    monkeypatch.setattr(sender, "LOOK_SECONDS", 3600.0)
    request.getfixturevalue("gateway")
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    valkey.restart()
    delivery = conversation_actions.deliver(
        account="telegram:ada", chat_id="501", kind=DeliveryKind.NOTICE, text="By a hint.", by=Actor.system("test")
    )

    def hinted() -> bool:
        live.send("outbox:telegram", {"account": "telegram:ada"})
        return Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.SENT).exists()

    until(hinted)
