"""The SDK's Transport over a shim: to a CLI of our own, and to one that another worker has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from claude_agent_sdk import CLIConnectionError, Transport

from execution.shim.pipes import Pipes


class ShimTransport(Pipes, Transport):
    """What the SDK expects of a transport; only the name of its error is not the pipes' own."""

    was_asked = False  # the CLI has its prompt already
    error_type = ""  # what the API called the error that ended the turn; the SDK's messages leave it out

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the CLI says."""
        async for message in super().read_messages():
            if message.get("type") == "result":
                self.error_type = str(message.get("api_error_type") or "")
            yield message

    async def write(self, data: str) -> None:
        """Write one line to the CLI. Raises CLIConnectionError when it does not read any more."""
        try:
            await super().write(data)
        except BrokenPipeError as error:
            raise CLIConnectionError(str(error)) from error


class TakenTransport(ShimTransport):
    """To a CLI in the middle of a turn. `said` is all that was said to it since its gate opened.

    The SDK introduces itself to every CLI. This one knows it: its introduction is answered here, and its hooks have the same names
    because our options are the same. Of what the CLI asked, only what got no answer is asked again.
    """

    def __init__(self, said: bytes) -> None:
        super().__init__()
        lines = [json.loads(line) for line in said.splitlines()]
        self.was_asked = any(line.get("type") == "user" for line in lines)
        self._answered = {line["response"]["request_id"] for line in lines if line.get("type") == "control_response"}
        self._introduced: asyncio.Future[str]

    async def connect(self) -> None:
        """Attach to the CLI."""
        self._introduced = asyncio.get_running_loop().create_future()
        await super().connect()

    async def write(self, data: str) -> None:
        """Write one line to the CLI, but for the introduction."""
        if not self._introduced.done():
            message = json.loads(data)
            if message.get("request", {}).get("subtype") == "initialize":
                self._introduced.set_result(message["request_id"])
                return
        await super().write(data)

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the answer to the introduction, then what the CLI has written since the gate opened, then what it writes."""
        answer = {"subtype": "success", "request_id": await self._introduced, "response": {}}
        yield {"type": "control_response", "response": answer}
        async for message in super().read_messages():
            if not self._was_answered(message):
                yield message

    def _was_answered(self, message: dict[str, Any]) -> bool:
        return message.get("type") == "control_request" and message.get("request_id") in self._answered
