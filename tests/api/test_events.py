"""The event stream of a turn: whole, in order, resumable, and light on what it holds."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.db import connection

from conversations import actions
from conversations.models import Turn
from execution import actions as execution_actions
from execution.models import Execution
from execution.states import Cause, EventKind, ExecutionState, OutcomeClass
from fleet.api import sse
from fleet.following import BEGINNING, Place
from fleet.kernel import clock
from gateways.threads import in_thread
from identities.models import Identity, Person
from tests.api.conftest import Call, token_of
from tests.conversations import scenes
from tests.execution.logins import CHAIN, two_logins

__all__ = ["two_logins"]
Event = dict[str, Any]


@pytest.fixture
def turn(transactional_db: None, ada: Identity, eva: Person, call: Call) -> Turn:
    """A turn that a worker has begun."""
    answer = call("POST", "/message", {"identity": "ada", "text": "Hello"}, token=token_of(eva))
    turn = Turn.objects.get(pk=answer.json()["turn_id"])
    scenes.running(turn)
    return turn


@pytest.fixture
def chain(two_logins: None, ada: Identity) -> None:
    """Ada asks one provider first, then another."""
    Identity.objects.filter(pk=ada.pk).update(provider_chain=CHAIN)


def soon() -> dt.datetime:
    return clock.now() + dt.timedelta(hours=1)


def write(execution: Execution, first: int, *texts: str) -> None:
    """A worker writes pieces of the answer."""
    lines = [(EventKind.TEXT, {"text": text}) for text in texts]
    execution_actions.record_events(execution=execution, first_sequence=first, lines=lines)


def finish(execution: Execution, text: str) -> None:
    scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer=text)


def fail(execution: Execution) -> None:
    """Its login is used up, after three events that are no effect."""
    notices = [(EventKind.NOTICE, {"text": str(number)}) for number in range(3)]
    execution_actions.record_events(execution=execution, first_sequence=1, lines=notices)
    scenes.end(execution, ExecutionState.FAILED, OutcomeClass.LIMIT, cause=Cause.USAGE_LIMIT, retry_at=soon())


def take_over(turn: Turn) -> None:
    """Another login answers the turn, and counts its events from one again."""
    actions.advance(turn.conversation_id)
    execution = scenes.running(turn)
    write(execution, 1, "Good", " day.")
    finish(execution, "Good day.")


def texts(events: list[Event]) -> list[str]:
    return [event["payload"]["text"] for event in events if event["event"] == "text"]


async def listen(turn: Turn, after: Place = BEGINNING) -> AsyncIterator[Event]:
    """Read the stream as an event source does."""
    async for block in sse.stream(turn.pk, conversation_id=turn.conversation_id, after=after):
        fields = dict(line.split(": ", 1) for line in block.decode().strip().splitlines() if not line.startswith(":"))
        if "event" in fields:
            yield {"event": fields["event"], "id": fields.get("id"), **json.loads(fields["data"])}
        elif block.startswith(b":"):
            yield {"event": "comment"}


async def read_all(turn: Turn, after: Place = BEGINNING) -> list[Event]:
    async with asyncio.timeout(30):
        return [event async for event in listen(turn, after)]


async def test_tells_everything_in_order_and_ends_with_the_whole_turn(turn: Turn) -> None:
    def work() -> int:
        execution = Execution.objects.get()
        write(execution, 1, "Good", " day.")
        finish(execution, "Good day.")
        return execution.pk

    execution = await in_thread(work)
    events = await read_all(turn)

    assert [event["event"] for event in events if event["event"] != "ended"] == ["state", "text", "text", "end"]
    assert [event["id"] for event in events if event["event"] == "text"] == [
        f"{execution}-{number}" for number in (1, 2)
    ]
    assert events[-1]["text"] == "Good day."
    assert events[-1]["status"] == "replied"


async def test_tells_what_happens_while_it_is_open(turn: Turn) -> None:
    execution = await in_thread(lambda: Execution.objects.get())
    stream = listen(turn)
    async with asyncio.timeout(30):
        assert (await anext(stream))["state"] == "running"
        await in_thread(lambda: write(execution, 1, "Good"))
        assert (await anext(stream))["payload"] == {"text": "Good"}
        await in_thread(lambda: finish(execution, "Good"))
        rest = [event["event"] async for event in stream]

    assert rest[-1] == "end"


async def test_goes_on_in_the_execution_that_takes_the_turn_over(
    chain: None, turn: Turn, call: Call, settings: Any
) -> None:
    """The other one counts its events from the beginning again: none of them may be missed for that."""
    first = await in_thread(lambda: Execution.objects.get())

    seen = []
    async with asyncio.timeout(30):
        async for event in listen(turn):
            if event.get("state") == "running" and not seen:
                await in_thread(fail, first)
            elif event.get("state") == "queued":
                await in_thread(take_over, turn)
            seen.append(event)
    assert [event["payload"]["text"] for event in seen if event["event"] == "text"] == ["Good", " day."]
    assert (seen[-1]["event"], seen[-1]["status"], seen[-1]["text"]) == ("end", "replied", "Good day.")


async def test_goes_on_after_the_event_that_was_seen_last(turn: Turn) -> None:
    def work() -> int:
        execution = Execution.objects.get()
        write(execution, 1, *"abcdef")
        finish(execution, "abcdef")
        return execution.pk

    execution = await in_thread(work)

    assert texts(await read_all(turn)) == list("abcdef")
    assert texts(await read_all(turn, Place(execution, 4))) == list("ef")
    assert texts(await read_all(turn, Place(sequence=4))) == list("ef")  # as programs have named it before


@pytest.mark.parametrize("known", [True, False], ids=["by its id", "by a bare sequence"])
async def test_who_was_cut_off_before_another_took_over_hears_that_one_from_its_beginning(
    chain: None, turn: Turn, known: bool
) -> None:
    """The line is cut while the turn waits for the other one."""
    first = await in_thread(lambda: Execution.objects.get())
    await in_thread(fail, first)
    seen = []
    async with asyncio.timeout(30):
        async for event in listen(turn, Place(first.pk if known else None, 3)):
            if event.get("state") == "queued":
                await in_thread(take_over, turn)
            seen.append(event)

    assert texts(seen) == ["Good", " day."]


async def test_who_comes_back_after_another_took_over_hears_that_one_from_its_beginning(
    chain: None, turn: Turn
) -> None:
    first = await in_thread(lambda: Execution.objects.get())
    await in_thread(fail, first)
    await in_thread(take_over, turn)

    assert texts(await read_all(turn, Place(first.pk, 3))) == ["Good", " day."]


def test_an_id_comes_back_as_the_place_it_was_told_for(
    turn: Turn, eva: Person, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Place] = []
    monkeypatch.setattr(sse, "stream", lambda *_, after, **__: asked.append(after) or iter(()))
    for given in ("7-3", "3"):
        call("GET", f"/api/v1/turns/{turn.pk}/events", token=token_of(eva), **{"Last-Event-ID": given})

    assert asked == [Place(7, 3), Place(None, 3)]


async def test_leaves_no_gap_when_there_are_more_events_than_one_look_reads(turn: Turn) -> None:
    def work() -> None:
        execution = Execution.objects.get()
        write(execution, 1, *(str(number) for number in range(450)))
        finish(execution, "")

    await in_thread(work)
    texts = [event["payload"]["text"] for event in await read_all(turn) if event["event"] == "text"]

    assert texts == [str(number) for number in range(450)]


async def test_waits_for_a_turn_that_nobody_has_taken_yet(turn: Turn, eva: Person, call: Call) -> None:
    def queue() -> Turn:
        answer = call("POST", "/message", {"identity": "ada", "text": "And?"}, token=token_of(eva))
        return Turn.objects.get(pk=answer.json()["turn_id"])

    waiting = await in_thread(queue)
    stream = listen(waiting)
    async with asyncio.timeout(30):
        assert (await anext(stream))["state"] == "queued"
        await in_thread(lambda: call("POST", f"/api/v1/turns/{waiting.pk}/stop", token=token_of(eva)))
        assert [event["event"] async for event in stream] == ["state", "end"]


async def test_says_that_it_is_still_there_when_nothing_happens(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    stream = listen(turn)
    async with asyncio.timeout(30):
        assert (await anext(stream))["event"] == "state"
        assert (await anext(stream))["event"] == "comment"
    await stream.aclose()


async def test_tells_everything_without_redis_too(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("fleet.following.listen", deaf)
    execution = await in_thread(lambda: Execution.objects.get())
    stream = listen(turn)
    async with asyncio.timeout(30):
        assert (await anext(stream))["state"] == "running"
        await in_thread(lambda: finish(execution, "Good day."))
        assert [event["event"] async for event in stream][-1] == "end"


async def test_holds_no_database_connection_while_it_waits(turn: Turn) -> None:
    streams = [listen(turn) for _ in range(10)]
    async with asyncio.timeout(30):
        for stream in streams:
            await anext(stream)
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        busy = await in_thread(_connections_in_use)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert busy < len(streams)


def _connections_in_use() -> int:
    statistics = connection.pool.get_stats()
    return statistics["pool_size"] - statistics["pool_available"]


@pytest.mark.parametrize(
    ("query", "header", "status"),
    [
        ("?after=x", "", 400),
        ("?after=-1", "", 400),
        ("", "x", 400),
        ("", "7-", 400),
        ("?after=3", "", 200),
        ("?after=7-3", "", 200),
    ],
)
def test_asks_for_a_place_that_could_be_one(
    turn: Turn, eva: Person, call: Call, query: str, header: str, status: int
) -> None:
    headers = {"Last-Event-ID": header} if header else {}

    answer = call("GET", f"/api/v1/turns/{turn.pk}/events{query}", token=token_of(eva), **headers)

    assert answer.status_code == status


def test_is_served_as_an_event_stream_that_no_proxy_keeps_back(turn: Turn, eva: Person, call: Call) -> None:
    answer = call("GET", f"/api/v1/turns/{turn.pk}/events", token=token_of(eva), Accept="text/event-stream")

    assert answer["Content-Type"] == "text/event-stream"
    assert (answer["Cache-Control"], answer["X-Accel-Buffering"]) == ("no-store", "no")
