"""Following a turn to its end, for whoever shows it elsewhere: the event stream of the API, a caller that waits, a terminal.

The truth is read from PostgreSQL. Hints wake the reader early; without Redis it looks every second. Between two looks nothing is
held: no thread and no database connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from conversations.models import Turn
from conversations.states import TURN
from execution import queries as execution_queries
from execution.models import ExecutionEvent
from fleet.kernel import database, loops
from gateways.hints import listen, wait_for
from gateways.threads import in_thread

log = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 1.0
EVENTS_PER_LOOK = 200
_FIRST_WAIT_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """The last event that somebody has seen of a turn: `sequence` counts within an execution, and a turn may have several.

    Without an execution, as older programs name it, it is a place in the one that is at work when they come.
    """

    execution_id: int | None = None
    sequence: int = 0

    def seen_from(self, execution_id: int | None) -> Place:
        """Return the place as it counts now that this execution has the turn: its beginning when the last one seen was another."""
        if self.execution_id in (None, execution_id):
            return Place(execution_id, self.sequence if execution_id else 0)
        return Place(execution_id) if execution_id else self


BEGINNING = Place()


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


def look(turn_id: int, *, after: Place) -> Glimpse:
    """Return the turn's state and its events after a place; all of an execution's that the place is not in.

    The state is read first: a turn seen as ended has no event that the second read could miss.
    """
    turn = Turn.objects.only("state", "execution_id").get(pk=turn_id)
    if turn.execution_id is None:
        return Glimpse(turn.state, None, ())
    events = execution_queries.events_after(
        turn.execution_id, after.seen_from(turn.execution_id).sequence, EVENTS_PER_LOOK
    )
    return Glimpse(turn.state, turn.execution_id, tuple(events))


async def follow(
    turn_id: int, *, conversation_id: int, after: Place = BEGINNING, heartbeat: float = 15.0
) -> AsyncIterator[Glimpse | None]:
    """Yield a glimpse whenever something is new, None after `heartbeat` seconds without news, and end with the turn.

    A turn that another execution takes over is followed there, from its first event on. A database that restarts is waited for.
    Cancel the iteration to stop following.
    """
    state, spoke_at = "", time.monotonic()
    async with Ears() as ears:
        ears.listen_to(f"conversation:{conversation_id}")
        while True:
            glimpse = await _look_if_possible(turn_id, after)
            after = after.seen_from(glimpse.execution_id) if glimpse else after
            if glimpse and (glimpse.events or glimpse.state != state):
                state, spoke_at = glimpse.state, time.monotonic()
                after = replace(after, sequence=glimpse.events[-1].sequence) if glimpse.events else after
                yield glimpse
                if glimpse.ended:
                    return
                if len(glimpse.events) == EVENTS_PER_LOOK:
                    continue
            if glimpse and glimpse.execution_id:
                ears.listen_to(f"execution:{glimpse.execution_id}")
            if time.monotonic() - spoke_at >= heartbeat:
                spoke_at = time.monotonic()
                yield None
            await ears.wait(at_most=heartbeat)


async def _look_if_possible(turn_id: int, after: Place) -> Glimpse | None:
    try:
        return await in_thread(look, turn_id, after=after)
    except database.AWAY as error:
        log.warning("following.database_away", turn=turn_id, error=str(error).splitlines()[0])
        return None


class Ears:
    """Listens for hints. A new ear needs a moment until it hears, so the first waits after it are short."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._ears: dict[str, asyncio.Task[None]] = {}
        self._patience = _FIRST_WAIT_SECONDS

    def listen_to(self, topic: str) -> None:
        """Listen to one more topic; one that is known already costs nothing."""
        if topic not in self._ears:
            self._ears[topic] = asyncio.create_task(listen(topic, heard=lambda _hint: self._woken.set()))
            self._patience = _FIRST_WAIT_SECONDS

    async def wait(self, *, at_most: float) -> None:
        """Return at the next hint, or when it is time to look anyway."""
        await wait_for(self._woken, min(self._patience, at_most))
        self._woken.clear()
        self._patience = min(self._patience * 2, LOOK_EVERY_SECONDS)

    async def __aenter__(self) -> Ears:
        """Begin without an ear."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening; a Redis that hangs is not waited for."""
        for ear in self._ears.values():
            ear.cancel()
        await asyncio.wait(self._ears.values(), timeout=1.0)


def wait_until_ended(turn_id: int, *, conversation_id: int, seconds: float) -> None:
    """Return when the turn has ended or `seconds` have passed; the caller must hold no database connection meanwhile."""
    loops.submit(_until_ended(turn_id, conversation_id, seconds), loop="following").result(seconds + 5)


async def _until_ended(turn_id: int, conversation_id: int, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for _glimpse in follow(turn_id, conversation_id=conversation_id):
                pass
