"""The protocol's messages over the pipes of a shim, for the SDK's connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from acp.meta import AGENT_METHODS

from execution.shim.pipes import Ended, Pipes, Unintelligible

ANSWERED = (
    "fleet/answered"  # a request of the agent, with the answer that another worker gave it; no message of the protocol
)
_PROMPT, _CANCEL = AGENT_METHODS["session_prompt"], AGENT_METHODS["session_cancel"]


class PipesTransport:
    """What `acp.connection.Connection` sends to and receives from. `end` is why nothing more comes, `requests` how many were sent.

    One that goes on with another worker's has what that one `said` since its gate opened, and how many requests it had sent by
    then. A connection numbers its requests from 0: this one's are moved behind the other's, so that the prompt, which is always the
    first after the gate, has the same number, and is said only if it was not. Nothing is heard before that: its answer may be next.
    """

    def __init__(self, pipes: Pipes, *, said: bytes = b"", requests: int = 0) -> None:
        self._pipes = pipes
        self._messages: AsyncIterator[dict[str, Any]] = pipes.read_messages()
        lines = [json.loads(line) for line in said.splitlines()]
        methods = [line.get("method") for line in lines]
        self._was_asked, self.was_cancelled = _PROMPT in methods, _CANCEL in methods
        self._answers = {line["id"]: line.get("result") or {} for line in lines if "method" not in line}
        self._moved = self.requests = requests
        self._listens = asyncio.Event()
        if not requests:
            self._listens.set()
        self.end: Exception = Ended()

    async def send(self, message: dict[str, Any]) -> None:
        """Write one message. Raises BrokenPipeError when the agent does not read any more."""
        if "id" in message and "method" in message:
            message = {**message, "id": message["id"] + self._moved}
            self.requests += 1
            self._listens.set()
        if not (self._was_asked and message.get("method") == _PROMPT):
            await self._pipes.write(json.dumps(message) + "\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message, None after the last."""
        await self._listens.wait()
        try:
            return self._known(await anext(self._messages))
        except StopAsyncIteration:
            return None
        except Exception as error:
            self.end = error
            return None

    def _known(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the message as this connection has to hear it."""
        number = message.get("id")
        if message.get("method") == ANSWERED:
            raise Unintelligible("It says what only Fleet says to itself.")
        if number is None:
            return message
        if "method" not in message:
            return {**message, "id": number - self._moved}
        if number in self._answers:
            told = {"request": message.get("params"), "answer": self._answers[number]}
            return {"method": ANSWERED, "params": told}
        return message

    async def close(self) -> None:
        """The shim ends the process, and the run lets go of its pipes."""
