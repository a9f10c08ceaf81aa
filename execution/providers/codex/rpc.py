"""JSON-RPC with the app-server over a shim's pipes: requests of ours are answered, everything else comes out in its order."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from execution.shim.pipes import Ended, Pipes

_NOT_FOR_US = -32601  # JSON-RPC: method not found


class RequestRefused(Exception):
    """The app-server answered a request with an error."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A notification, or a request of the app-server when `id` is set."""

    method: str
    params: dict[str, Any]
    id: int | str | None = None


class Peer:
    """One conversation with an app-server. Everything runs on one loop."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._incoming: asyncio.Queue[Incoming | Exception] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()

    async def request(self, method: str, params: BaseModel | dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its result. Raises RequestRefused, or what ended the app-server."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"id": number, "method": method, "params": _as_json(params)})
            result: dict[str, Any] = await answer
            return result
        finally:
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # looked at, also when sending failed first

    async def notify(self, method: str) -> None:
        """Send a notification."""
        await self._send({"method": method})

    async def answer(self, asked: Incoming, result: dict[str, Any]) -> None:
        """Answer a request of the app-server."""
        await self._send({"id": asked.id, "result": result})

    async def refuse(self, asked: Incoming) -> None:
        """Answer a request of the app-server that we do not serve."""
        await self._send({"id": asked.id, "error": {"code": _NOT_FOR_US, "message": "Nobody here answers this."}})

    async def incoming(self) -> AsyncIterator[Incoming]:
        """Yield notifications and requests in the order they came. Raises what ended the app-server."""
        while True:
            message = await self._incoming.get()
            if isinstance(message, Exception):
                raise message
            yield message

    async def _send(self, message: dict[str, Any]) -> None:
        await self._pipes.write(json.dumps(message) + "\n")

    async def _read(self) -> None:
        end: Exception = Ended()
        try:
            async for message in self._pipes.read_messages():
                self._take(message)
        except Exception as error:
            end = error
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(end)
        self._incoming.put_nowait(end)

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message:
            params = message.get("params") or {}
            self._incoming.put_nowait(Incoming(str(message["method"]), params, message.get("id")))
            return
        answer = self._waiting.get(message.get("id", 0))
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(RequestRefused(str(message["error"].get("message", ""))))
        else:
            answer.set_result(message.get("result") or {})


def _as_json(params: BaseModel | dict[str, Any]) -> dict[str, Any]:
    if isinstance(params, BaseModel):
        return params.model_dump(by_alias=True, exclude_none=True, mode="json")
    return params
