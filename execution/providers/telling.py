"""From a provider's loop to the worker's thread: events in a queue, read until the last one."""

from __future__ import annotations

import queue
from collections.abc import Iterator

from execution.ports import Finished, ProviderEvent

LOST_SESSION = "The earlier part of this conversation is not on this machine any more, so I start afresh."
OUTGROWN = "The answer reached the longest length that the model may write; ask it to go on."


def told(events: queue.SimpleQueue[ProviderEvent | None], *, timeout: float) -> Iterator[ProviderEvent | None]:
    """Yield what comes, None whenever `timeout` seconds pass without anything; ends after Finished, or at a None in the queue."""
    while True:
        try:
            event = events.get(timeout=timeout)
        except queue.Empty:
            yield None
            continue
        if event is None:
            return
        yield event
        if isinstance(event, Finished):
            return
