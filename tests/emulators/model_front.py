"""The address the CLI talks to: keeps every request, misbehaves where a rule says so, and lets aimock answer the rest.

aimock speaks the Messages API but reports no cache tokens and cannot send garbage, fall silent or hold an answer;
those live here.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web

from tests.emulators.model_rules import ModelRequest, Rule

CONTEXT = "X-AIMock-Context"
HOP_BY_HOP = {"host", "content-length", "connection", "accept-encoding", "transfer-encoding", "x-aimock-context"}
EVENT_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class ModelFront:
    """`journal` gets each request; `choose` gives the rule for it, or None for the echo."""

    def __init__(
        self, upstream: str, journal: list[ModelRequest], choose: Callable[[ModelRequest], Rule | None]
    ) -> None:
        self._upstream = upstream
        self._journal = journal
        self._choose = choose

    async def application(self) -> web.Application:
        application = web.Application(client_max_size=256 * 1024**2)
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.cleanup_ctx.append(self._session)
        return application

    async def _session(self, application: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as self._client:
            yield

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = ModelRequest(request.method, request.path_qs, dict(request.headers), await request.read())
        self._journal.append(asked)
        rule = self._choose(asked) if asked.is_message else Rule(match="")
        if rule.latency:
            await asyncio.sleep(rule.latency)
        if rule.gate and not rule.details.get("after_events"):
            await rule.gate.pass_through()
        try:
            return await getattr(self, f"_{rule.kind}")(request, asked, rule)
        finally:
            asked.ended = time.monotonic()

    async def _reply(self, request: web.Request, asked: ModelRequest, rule: Rule) -> web.StreamResponse:
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in HOP_BY_HOP}
        headers[CONTEXT] = rule.name if rule.fixture else f"echo {quote(asked.said[:500])}"
        url = self._upstream + asked.path
        async with self._client.request(asked.method, url, data=asked.body, headers=headers) as answer:
            if answer.content_type == "text/event-stream":
                return await self._stream(request, answer, rule)
            return await _whole(answer, rule)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse, rule: Rule) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM | rule.headers)
        await response.prepare(request)
        sent = 0
        async for event in _events(answer):
            await response.write(_as_ruled(event, rule))
            sent += 1
            if rule.gate and sent == rule.details.get("after_events"):
                await rule.gate.pass_through()
            if sent == rule.details.get("cut_after"):
                request.transport.close()
                break
        return response

    async def _script(self, request: web.Request, asked: ModelRequest, rule: Rule) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM | rule.headers)
        await response.prepare(request)
        call = {"type": "custom_tool_call", "id": f"ctc_{rule.name}", "call_id": f"call_{rule.name}", "name": "exec"}
        call |= {"input": rule.details["script"], "status": "completed"}
        end = {"id": f"resp_{rule.name}", "status": "completed", "output": [call], "usage": rule.usage.as_responses()}
        await response.write(_event({"type": "response.created", "response": {"id": end["id"]}}))
        await response.write(_event({"type": "response.output_item.done", "output_index": 0, "item": call}))
        await response.write(_event({"type": "response.completed", "response": end}))
        return response

    async def _garbage(self, request: web.Request, asked: ModelRequest, rule: Rule) -> web.StreamResponse:
        return web.Response(body=rule.details["body"], content_type=rule.details["content_type"], headers=rule.headers)

    async def _silence(self, request: web.Request, asked: ModelRequest, rule: Rule) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM | rule.headers)
        if rule.details["headers_first"]:
            await response.prepare(request)
            await response.write(_event(_message_start(asked, rule)))
        await asyncio.sleep(rule.details["seconds"])
        request.transport.close()
        return response

    async def _flood(self, request: web.Request, asked: ModelRequest, rule: Rule) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM | rule.headers)
        await response.prepare(request)
        await response.write(_event(_message_start(asked, rule)))
        block = {"type": "text", "text": ""}
        await response.write(_event({"type": "content_block_start", "index": 0, "content_block": block}))
        delta = {"type": "text_delta", "text": "flood " * 10_922}
        piece = _event({"type": "content_block_delta", "index": 0, "delta": delta})
        for _ in range(rule.details["megabytes"] * 16):
            await response.write(piece)
        await response.write(_event({"type": "content_block_stop", "index": 0}))
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": rule.usage.at_end()}
        await response.write(_event(end) + _event({"type": "message_stop"}))
        return response


async def _whole(answer: aiohttp.ClientResponse, rule: Rule) -> web.Response:
    body = await answer.read()
    if answer.status == 200 and answer.content_type == "application/json":
        message = json.loads(body)
        if message.get("type") == "message":
            body = json.dumps(message | {"usage": rule.usage.as_api()}).encode()
    kept = {name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers}
    return web.Response(status=answer.status, body=body, content_type=answer.content_type, headers=kept | rule.headers)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Server-sent events, each with its closing blank line."""
    rest = b""
    async for piece in answer.content.iter_any():
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            yield event + b"\n\n"


def _as_ruled(event: bytes, rule: Rule) -> bytes:
    """The event with the rule's usage, and its `stop` where it has one."""
    usage = rule.usage
    kind = event.split(b"\n", 1)[0]
    if kind == b"event: response.completed":
        data = json.loads(event.split(b"data: ", 1)[1])
        data["response"]["usage"] = usage.as_responses()
        return _event(data)
    if kind not in (b"event: message_start", b"event: message_delta"):
        return event
    data = json.loads(event.split(b"data: ", 1)[1])
    if data["type"] == "message_start":
        data["message"]["usage"] = usage.as_api(output=1)
    else:
        data["usage"] = usage.at_end()
        data["delta"]["stop_reason"] = rule.details.get("stop", data["delta"].get("stop_reason"))
    return _event(data)


def _message_start(asked: ModelRequest, rule: Rule) -> dict[str, Any]:
    message = {
        "id": f"msg_{rule.name}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": asked.model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": rule.usage.as_api(output=1),
    }
    return {"type": "message_start", "message": message}


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
