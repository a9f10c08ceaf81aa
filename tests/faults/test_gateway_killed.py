"""kill -9 of the gateway at the worst moments: no message is lost, and none is answered twice."""

# ruff: noqa: F811 - fixtures are asked for by their names
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from conversations import actions as conversation_actions
from conversations.models import Delivery, InboundMessage, Turn
from conversations.states import DeliveryKind, DeliveryState, InboundState
from fleet.kernel.actors import Actor
from gateways.models import TokenLease
from tests.conversations import scenes
from tests.gateways.cast import ada, ada_on_telegram, eva, eva_talks, gateways, telegram  # noqa: F401 - fixtures
from tests.gateways.running import database_url, until

BY = Actor.system("test")
pytestmark = pytest.mark.stack


@contextmanager
def locked(table: str) -> Iterator[None]:
    """Nobody reads or writes this table until the end of the block."""
    with psycopg.connect(database_url()) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def blocked_on(table: str) -> bool:
    """Whether somebody waits for this table."""
    with psycopg.connect(database_url()) as connection:
        return connection.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass)", [table]
        ).fetchone()[0]


def test_between_fetching_and_storing(telegram, ada_on_telegram, eva, eva_talks, gateways):
    first = gateways.start()
    first.wait_for("telegram.polling ")
    with locked("conversations_inboundmessage"):
        said = eva_talks.send(ada_on_telegram, "Hello Ada")
        until(lambda: said.times().fetched)
        until(lambda: blocked_on("conversations_inboundmessage"))
        first.kill()
    assert said.times().confirmed is None
    assert not InboundMessage.objects.exists()

    gateways.start()
    said.wait_confirmed()
    turn = until(lambda: Turn.objects.filter(execution__isnull=False).first())
    scenes.answer(turn, "Here I am.")
    assert eva_talks.wait_for_reply(said).text == "Here I am."
    assert InboundMessage.objects.count() == Turn.objects.count() == len(telegram.sent()) == 1


def test_between_storing_and_intake(telegram, ada_on_telegram, eva, eva_talks, gateways):
    first = gateways.start()
    first.wait_for("telegram.polling ")
    eva_talks.send(ada_on_telegram, "/start").wait_confirmed()  # everything is warm and known
    until(lambda: telegram.sent())
    with locked("identities_identity"):
        said = eva_talks.send(ada_on_telegram, "Hello Ada")
        said.wait_confirmed()
        until(lambda: blocked_on("identities_identity"))
        first.kill()
    row = InboundMessage.objects.get(text="Hello Ada")
    assert row.state == InboundState.RECEIVED

    gateways.start()
    until(lambda: conversation_actions.sweep() and InboundMessage.objects.get(pk=row.pk).state == InboundState.TAKEN)
    scenes.answer(Turn.objects.get(), "Here I am.")
    assert eva_talks.wait_for_reply(said).text == "Here I am."
    assert Turn.objects.count() == 1


def test_between_storing_and_telling_telegram(telegram, ada_on_telegram, eva, eva_talks, gateways):
    """The next poll never arrives, so Telegram delivers the message once more: its row is known."""
    first = gateways.start()
    first.wait_for("telegram.polling ")
    said = eva_talks.send(ada_on_telegram, "Hello Ada")
    until(lambda: Turn.objects.filter(execution__isnull=False).exists())
    first.kill()
    said.deliver_again()

    gateways.start()
    until(lambda: len(said.times().fetched) == 2)
    said.wait_confirmed()
    follow_up = eva_talks.send(ada_on_telegram, "/status")
    eva_talks.wait_for_reply(follow_up)
    assert InboundMessage.objects.filter(text="Hello Ada").count() == 1
    assert Turn.objects.count() == 1


def test_while_an_answer_is_on_its_way(telegram, ada_on_telegram, eva_talks, gateways):
    """Telegram has the message, we have no receipt: it comes again, and says that it may be a repetition."""
    first = gateways.start()
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    sending = telegram.fault("sendMessage", hold=True)
    delivery = conversation_actions.deliver(
        account="telegram:ada", chat_id="501", kind=DeliveryKind.NOTICE, text="Important", by=BY
    )
    sending.wait_hit()
    first.kill()
    sending.release()
    assert Delivery.objects.get(pk=delivery.pk).state == DeliveryState.SENDING

    gateways.start()
    Delivery.objects.filter(pk=delivery.pk).update(sending_since="2020-01-01T00:00:00Z")  # a minute later
    conversation_actions.sweep()
    until(lambda: conversation_actions.sweep() or Delivery.objects.filter(pk=delivery.pk, state="sent").exists())
    texts = [message.text for message in telegram.sent()[1:]]
    assert texts == ["Important", "(possibly repeated)\nImportant"]


def test_the_next_process_need_not_wait_for_the_lease_of_a_dead_one(telegram, ada_on_telegram, gateways):
    first = gateways.start()
    first.wait_for("telegram.polling ")
    holder = TokenLease.objects.get().holder
    first.kill()
    gateways.start().wait_for("telegram.polling ")
    assert TokenLease.objects.get().holder != holder
    assert 409 not in {call.status for call in telegram.calls("getUpdates")}
