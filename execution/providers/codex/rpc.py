"""JSON-RPC with the app-server over a shim's pipes: requests of ours are answered, everything else comes out in its order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from execution.shim.pipes import Ended, Pipes

_TURN = "turn/start"
_NOT_FOR_US = -32601  # JSON-RPC: method not found


class RequestRefused(Exception):
    """The app-server answered a request with an error."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A notification, or a request of the app-server when `id` is set. `answer` is what another worker has answered already."""

    method: str
    params: dict[str, Any]
    id: int | str | None = None
    answer: Mapping[str, Any] | None = None


class Peer:
    """One conversation with an app-server. Everything runs on one loop.

    One that goes on with another worker's has what that one `said` since its gate opened, and the last number it used before.
    """

    def __init__(self, pipes: Pipes, *, said: bytes = b"", used: int = 0) -> None:
        self._pipes = pipes
        lines = [json.loads(line) for line in said.splitlines()]
        requests = {line["id"]: line["method"] for line in lines if "id" in line and "method" in line}
        self._answered = {line["id"]: line.get("result") or {} for line in lines if "method" not in line}
        self._asked = next((number for number, method in requests.items() if method == _TURN), 0)
        self.used = max([used, *requests])
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._incoming: asyncio.Queue[Incoming | Exception] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        if self._asked:
            self._waiting[self._asked] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()

    async def request(self, method: str, params: BaseModel | dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its result. Raises RequestRefused, or what ended the app-server."""
        self.used += 1
        self._waiting[self.used] = asyncio.get_running_loop().create_future()
        return await self._result(self.used, {"id": self.used, "method": method, "params": _as_json(params)})

    async def begin_turn(self, params: BaseModel) -> dict[str, Any]:
        """Begin a turn, unless another worker has: then only the answer is waited for. Raises as `request`."""
        if not self._asked:
            return await self.request(_TURN, params)
        number, self._asked = self._asked, 0
        return await self._result(number)

    async def _result(self, number: int, message: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._waiting[number]
        try:
            if message is not None:
                await self._send(message)
            return await answer
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
            params, number = message.get("params") or {}, message.get("id")
            answered = self._answered.get(number) if number is not None else None
            self._incoming.put_nowait(Incoming(str(message["method"]), params, number, answered))
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
