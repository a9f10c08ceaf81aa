"""Live hints: "this changed, look again". They carry no truth, may be lost, and never delay or fail the change."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from channels.layers import get_channel_layer
from django.db import transaction

from fleet.kernel import loops

log = structlog.get_logger(__name__)
SEND_TIMEOUT_SECONDS = 1.0


def group(topic: str) -> str:
    """Return the Channels group of a topic such as `conversation:12` or `outbox:telegram`."""
    return "live." + topic.replace(":", ".")


def hint(topic: str, **payload: Any) -> None:
    """Tell whoever watches `topic`, once the current transaction has committed; `payload` is plain JSON."""
    transaction.on_commit(lambda: send(topic, payload), robust=True)


def send(topic: str, payload: dict[str, Any]) -> None:
    """Tell whoever watches `topic` now, without waiting for it."""
    loops.submit(_deliver(topic, payload), loop="live")


async def _deliver(topic: str, payload: dict[str, Any]) -> None:
    message = {"type": "live.hint", "topic": topic, **payload}
    try:
        layer = get_channel_layer()
        await asyncio.wait_for(layer.group_send(group(topic), message), SEND_TIMEOUT_SECONDS)
    except Exception as error:
        log.debug("live.hint_lost", topic=topic, error=str(error))
