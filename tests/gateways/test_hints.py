"""Waiting for a hint, and being told to stop."""

from __future__ import annotations

import asyncio

import pytest

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
