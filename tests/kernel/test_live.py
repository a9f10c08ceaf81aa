"""Live hints: sent after commit, lost without harm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from channels.layers import get_channel_layer
from django.db import transaction

from fleet.kernel import live, loops

GENEROUS_SECONDS = 30


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was sent."""
    hints: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(live, "send", lambda topic, payload: hints.append((topic, payload)))
    return hints


@pytest.mark.django_db(transaction=True)
def test_a_hint_is_sent_when_the_transaction_commits(sent: list[Any]):
    with transaction.atomic():
        live.hint("conversation:12", turn=3)
        assert sent == []

    assert sent == [("conversation:12", {"turn": 3})]


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_change_hints_at_nothing(sent: list[Any]):
    with pytest.raises(RuntimeError), transaction.atomic():
        live.hint("conversation:12", turn=3)
        raise RuntimeError

    assert sent == []


def test_a_topic_becomes_a_group_name_channels_accepts():
    assert live.group("conversation:12") == "live.conversation.12"


async def test_whoever_watches_a_topic_gets_its_hints():
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(live.group("tests:1"), channel)

    await live._deliver("tests:1", {"turn": 3})

    heard = await asyncio.wait_for(layer.receive(channel), GENEROUS_SECONDS)
    assert heard == {"type": "live.hint", "topic": "tests:1", "turn": 3}
    await layer.flush()


@pytest.mark.parametrize("illness", ["kill", "pause"])
def test_a_redis_that_does_not_answer_loses_the_hint_and_nothing_else(valkey: Any, illness: str):
    getattr(valkey, illness)()
    try:
        assert loops.submit(live._deliver("tests:1", {}), loop="live").result(GENEROUS_SECONDS) is None
    finally:
        valkey.start() if illness == "kill" else valkey.resume()
