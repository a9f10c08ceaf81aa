"""Waiting for a hint, and being told to stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet.following import Ears
from gateways import hints
from gateways.hints import wait_for


async def test_a_set_event_is_not_waited_for():
    event = asyncio.Event()
    event.set()
    await wait_for(event, 60)


async def test_the_wait_ends_without_an_event():
    await wait_for(asyncio.Event(), 0.01)


async def test_a_cancellation_is_never_swallowed_by_an_event_that_comes_with_it():
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_for(event, 60))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_ends_a_follower_at_whatever_moment_it_comes(steps: int):
    ears = Ears()
    ears._patience = 60.0
    waiting = asyncio.create_task(ears.wait(at_most=60))
    await asyncio.sleep(0)
    ears._woken.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


class Deaf:
    """A channel layer that swallows a cancellation in one of its calls, as a Redis client does that sends with asyncio.wait_for."""

    def __init__(self, swallows: str, *, fails: bool = False) -> None:
        self.swallows, self.fails = swallows, fails
        self.reached = asyncio.Event()

    async def new_channel(self) -> str:
        await self._call("new_channel")
        return "channel"

    async def group_add(self, group: str, channel: str) -> None:
        await self._call("group_add")

    async def group_discard(self, group: str, channel: str) -> None:
        await self._call("group_discard")

    async def receive(self, channel: str) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def _call(self, name: str) -> None:
        if name == self.swallows and not self.reached.is_set():
            self.reached.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if self.fails:
                    raise ConnectionError("Redis is away.") from None


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("call", ["new_channel", "group_add"])
async def test_a_cancellation_that_the_client_of_redis_swallows_ends_the_listener(
    monkeypatch: pytest.MonkeyPatch, call: str, fails: bool
):
    layer = Deaf(call, fails=fails)
    monkeypatch.setattr(hints, "get_channel_layer", lambda: layer)
    monkeypatch.setattr(hints, "RETRY_SECONDS", 0.0)
    listening = asyncio.create_task(hints.listen("fleet", heard=lambda _hint: None))
    await layer.reached.wait()
    listening.cancel()
    _, still = await asyncio.wait([listening], timeout=20)
    assert not still
    assert listening.cancelled()
