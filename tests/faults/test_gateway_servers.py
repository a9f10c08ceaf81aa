"""PostgreSQL and Redis go away under the gateway, and come back."""

from __future__ import annotations

import pytest
from django.db import connection

from conversations.models import InboundMessage, Turn
from tests.conversations import scenes
from tests.gateways.cast import ada, ada_on_telegram, eva, eva_talks, gateways, telegram  # noqa: F401 - fixtures
from tests.gateways.running import until

pytestmark = pytest.mark.stack


def test_a_restart_of_postgresql_while_polling_costs_nothing(
    telegram, ada_on_telegram, eva, eva_talks, gateways, postgres  # noqa: F811
):
    gateway = gateways.start()
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    connection.close()
    postgres.stop()
    said = [eva_talks.send(ada_on_telegram, f"message {number}") for number in range(3)]
    until(lambda: said[0].times().fetched)
    assert all(one.times().confirmed is None for one in said)
    postgres.start()

    for one in said:
        one.wait_confirmed()
    turn = until(lambda: Turn.objects.filter(execution__isnull=False).first())
    scenes.answer(turn, "All of them.")
    assert eva_talks.wait_for_reply(said[2]).text == "All of them."
    assert InboundMessage.objects.filter(text__startswith="message").count() == 3
    assert gateway.process.poll() is None


def test_without_redis_answers_still_arrive(
    telegram, ada_on_telegram, eva, eva_talks, gateways, valkey  # noqa: F811
):
    gateway = gateways.start()
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    valkey.stop()
    try:
        said = eva_talks.send(ada_on_telegram, "Hello")
        scenes.answer(until(lambda: Turn.objects.filter(execution__isnull=False).first()), "Still here.")
        assert eva_talks.wait_for_reply(said).text == "Still here."
    finally:
        valkey.start()
    assert gateway.process.poll() is None


def test_after_redis_came_back_hints_arrive_again(
    telegram, ada_on_telegram, eva, eva_talks, gateway_with_slow_looks, valkey  # noqa: F811
):
    """With its own looking switched off, only a hint can bring the answer out."""
    valkey.restart()
    said = eva_talks.send(ada_on_telegram, "Hello")
    turn = until(lambda: Turn.objects.filter(execution__isnull=False).first())
    until(gateway_with_slow_looks)
    scenes.answer(turn, "By a hint.")
    assert eva_talks.wait_for_reply(said).text == "By a hint."
