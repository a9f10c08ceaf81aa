"""The protocol's messages over the pipes of a shim, for the SDK's connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from execution.shim.pipes import Ended, Pipes


class PipesTransport:
    """What `acp.connection.Connection` sends to and receives from. `end` is why nothing more comes."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._messages: AsyncIterator[dict[str, Any]] = pipes.read_messages()
        self.end: Exception = Ended()

    async def send(self, message: dict[str, Any]) -> None:
        """Write one message. Raises BrokenPipeError when the agent does not read any more."""
        await self._pipes.write(json.dumps(message) + "\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message, None after the last."""
        try:
            return await anext(self._messages)
        except StopAsyncIteration:
            return None
        except Exception as error:
            self.end = error
            return None

    async def close(self) -> None:
        """The shim ends the process, and the run lets go of its pipes."""
