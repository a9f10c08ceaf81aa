"""Listens for live hints that something is to be stopped. Hints may be lost: the watch polls PostgreSQL anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

import structlog
from channels.layers import get_channel_layer

from execution.actions.dispatching import WORKERS
from fleet.kernel import live, loops

log = structlog.get_logger(__name__)
TOPICS = (WORKERS, "kill")
_PAUSE_SECONDS = 1.0


class Listener:
    """Calls `wake` for every hint on a topic that concerns workers."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._listening: Future[None] | None = None

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._listening = loops.submit(self._listen(), loop="live")

    def stop(self) -> None:
        """Listen no more."""
        if self._listening:
            self._listening.cancel()

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear()
            except Exception as error:
                log.debug("worker.hints_lost", error=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _hear(self) -> None:
        layer = get_channel_layer()
        channel = await layer.new_channel()
        for topic in TOPICS:
            await layer.group_add(live.group(topic), channel)
        try:
            while True:
                await layer.receive(channel)
                self._wake()
        finally:
            for topic in TOPICS:
                await layer.group_discard(live.group(topic), channel)
