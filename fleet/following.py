"""Following a turn to its end, for whoever shows it elsewhere: the event stream of the API, a caller that waits, a terminal.

The truth is read from PostgreSQL. Hints wake the reader early; without Redis it looks every second. Between two looks nothing is
held: no thread and no database connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import structlog
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import InterfaceError, OperationalError, connection
from psycopg_pool import PoolTimeout

from conversations.models import Turn
from conversations.states import TURN
from execution import queries as execution_queries
from execution.models import ExecutionEvent
from fleet.kernel import live, loops

log = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 1.0
EVENTS_PER_LOOK = 200
_REDIS_SECONDS = 1.0
_AWAY = (OperationalError, InterfaceError, PoolTimeout)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One look at a turn: where it stands, and what happened since the last look."""

    state: str
    execution_id: int | None
    events: tuple[ExecutionEvent, ...]

    @property
    def ended(self) -> bool:
        """Return whether the turn is over and this look has seen all of it."""
        return self.state in TURN.final and len(self.events) < EVENTS_PER_LOOK


def look(turn_id: int, *, after: int) -> Glimpse:
    """Return the turn's state and its events after the sequence `after`.

    The state is read first: a turn seen as ended has no event that the second read could miss.
    """
    turn = Turn.objects.only("state", "execution_id").get(pk=turn_id)
    if turn.execution_id is None:
        return Glimpse(turn.state, None, ())
    events = execution_queries.events_after(turn.execution_id, after, EVENTS_PER_LOOK)
    return Glimpse(turn.state, turn.execution_id, tuple(events))


async def follow(
    turn_id: int, *, conversation_id: int, after: int = 0, heartbeat: float = 15.0
) -> AsyncIterator[Glimpse | None]:
    """Yield a glimpse whenever something is new, None after `heartbeat` seconds without news, and end with the turn.

    A database that restarts is waited for. Cancel the iteration to stop following.
    """
    state, spoke_at = "", time.monotonic()
    async with Hints() as hints:
        await hints.listen(f"conversation:{conversation_id}")
        while True:
            glimpse = await _look_if_possible(turn_id, after)
            if glimpse and (glimpse.events or glimpse.state != state):
                state, spoke_at = glimpse.state, time.monotonic()
                after = glimpse.events[-1].sequence if glimpse.events else after
                yield glimpse
                if glimpse.ended:
                    return
                if glimpse.execution_id:
                    await hints.listen(f"execution:{glimpse.execution_id}")
                if len(glimpse.events) == EVENTS_PER_LOOK:
                    continue
            if time.monotonic() - spoke_at >= heartbeat:
                spoke_at = time.monotonic()
                yield None
            await hints.wait(min(LOOK_EVERY_SECONDS, heartbeat))


async def _look_if_possible(turn_id: int, after: int) -> Glimpse | None:
    try:
        return await in_thread(lambda: look(turn_id, after=after))
    except _AWAY as error:
        log.warning("following.database_away", turn=turn_id, error=str(error).splitlines()[0])
        return None


async def in_thread(read: Callable[[], Result]) -> Result:
    """Return what `read` reads from the database, in a thread of the pool, with the connection given back afterwards."""

    def reading() -> Result:
        try:
            return read()
        finally:
            connection.close()

    return await sync_to_async(reading, thread_sensitive=False)()


def wait_until_ended(turn_id: int, *, conversation_id: int, seconds: float) -> None:
    """Return when the turn has ended or `seconds` have passed; the caller must hold no database connection meanwhile."""
    loops.submit(_until_ended(turn_id, conversation_id, seconds), loop="following").result(seconds + 5)


async def _until_ended(turn_id: int, conversation_id: int, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for _glimpse in follow(turn_id, conversation_id=conversation_id):
                pass


class Hints:
    """An ear for live hints. Deaf without Redis: then `wait` simply takes its time."""

    def __init__(self) -> None:
        self._layer: Any = get_channel_layer()
        self._topics: set[str] = set()
        self._channel = ""
        self._next: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Hints:
        """Open a channel of our own, if Redis answers in time."""
        with suppress(Exception):  # whatever Redis or its client say: looking every second goes on
            self._channel = await asyncio.wait_for(self._layer.new_channel(), _REDIS_SECONDS)
            self._next = self._receive()
        return self

    async def listen(self, topic: str) -> None:
        """Listen to one more topic; a topic that is known already costs nothing."""
        if self._next and topic not in self._topics:
            self._topics.add(topic)
            with suppress(Exception):
                joining = self._layer.group_add(live.group(topic), self._channel)
                await asyncio.wait_for(joining, _REDIS_SECONDS)

    async def wait(self, seconds: float) -> None:
        """Return at the next hint, at the latest after `seconds`; hints that have piled up count as one."""
        if self._next is None:
            return await asyncio.sleep(seconds)
        await asyncio.wait({self._next}, timeout=seconds)
        while self._next and self._next.done():
            self._next = None if self._next.exception() else self._receive()
            await asyncio.sleep(0)
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the groups and drop the channel; Redis may be gone by now."""
        for topic in self._topics:
            with suppress(Exception):
                leaving = self._layer.group_discard(live.group(topic), self._channel)
                await asyncio.wait_for(leaving, _REDIS_SECONDS)
        if self._next:
            self._next.cancel()  # the channel layer forgets a channel when its receiver is cancelled
            await asyncio.wait({self._next}, timeout=_REDIS_SECONDS)

    def _receive(self) -> asyncio.Task[object]:
        return asyncio.ensure_future(self._layer.receive(self._channel))
