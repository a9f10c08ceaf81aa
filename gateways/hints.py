"""Listening to live hints from asyncio code."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from channels.layers import get_channel_layer

from fleet.kernel import live

log = structlog.get_logger(__name__)
RETRY_SECONDS = 1.0


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set, at the latest after so many seconds.

    Not by asyncio.wait_for: before Python 3.12 it swallows a cancellation that arrives together with the event, and the loop around it
    would never end.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def listen(*topics: str, heard: Callable[[dict[str, Any]], None]) -> None:
    """Call `heard` with every hint about `topics` until cancelled.

    Hints are lost while Redis is away, and nothing tells so: whoever listens must also look by itself now and then.
    """
    while True:
        _end_if_cancelled()
        try:
            await _listen(topics, heard)
        except Exception as error:
            log.debug("hints.away", topics=topics, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)


async def _listen(topics: tuple[str, ...], heard: Callable[[dict[str, Any]], None]) -> None:
    layer = get_channel_layer()
    channel = await layer.new_channel()
    try:
        for topic in topics:
            await layer.group_add(live.group(topic), channel)
        _end_if_cancelled()
        while True:
            heard(await layer.receive(channel))
    finally:
        for topic in topics:
            with contextlib.suppress(Exception):
                await layer.group_discard(live.group(topic), channel)


def _end_if_cancelled() -> None:
    """Obey a cancellation that came while the Redis client was sending: before Python 3.12 its asyncio.wait_for may swallow one.

    Nobody would cancel again, and whoever waits for the listener to end would wait for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
