"""The Bot API over HTTP: real long polling, confirmation by offset, one poller for a token, and planned faults."""

import asyncio
import json
from typing import Any

from aiohttp import web

from tests.emulators.telegram_errors import BadRequest, Conflict, TelegramError
from tests.emulators.telegram_methods import METHODS, Parameters
from tests.emulators.telegram_world import Bot, Call, Fault, Update, World, now


class TelegramApi:
    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, application: web.Application) -> None:
        application.router.add_route("*", "/bot{token}/{method}", self._call)
        application.router.add_get("/file/bot{token}/{path:.+}", self._download)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.match_info["token"], request.match_info["method"], await _parameters(request))
        self._world.calls.append(call)
        fault = self._world.fault_for(call)
        try:
            answer = await self._answer(call, fault)
        except TelegramError as refusal:
            answer = web.json_response(refusal.as_answer(), status=refusal.status)
        call.answered = now()
        await self._world.changed()
        if answer is None:
            request.transport.abort()
            return web.Response()
        call.status = answer.status
        return answer

    async def _answer(self, call: Call, fault: Fault | None) -> web.Response | None:
        """None: hang up."""
        bot = self._world.bots.get(call.token)
        if bot is None:
            raise TelegramError(401, "Unauthorized")
        if fault:
            await self._before(fault)
            if fault.drop == "before":
                return None
        result = await self._perform(bot, call)
        if fault and fault.hold:
            await self._world.changed()
            await fault.released.wait()
        if fault and fault.drop == "after":
            return None
        return web.json_response({"ok": True, "result": result})

    async def _before(self, fault: Fault) -> None:
        await asyncio.sleep(fault.delay)
        if error := fault.error():
            raise error

    async def _perform(self, bot: Bot, call: Call) -> Any:
        parameters = Parameters(call.parameters)
        if call.method.lower() == "getupdates":
            return await self._get_updates(bot, parameters)
        method = METHODS.get(call.method.lower())
        if method is None:
            raise TelegramError(404, "Not Found: method not found")
        return method(self._world, bot, parameters, call)

    async def _get_updates(self, bot: Bot, asked: Parameters) -> list[dict[str, Any]]:
        if bot.poll:
            bot.poll.set()
        terminated = bot.poll = asyncio.Event()
        try:
            _confirm(bot, asked.integer("offset"))
            bot.allowed = asked.data("allowed_updates", bot.allowed)
            limit = min(max(asked.integer("limit") or 100, 1), 100)
            return await self._next_updates(bot, limit, asked.integer("timeout") or 0, terminated)
        finally:
            if bot.poll is terminated:
                bot.poll = None

    async def _next_updates(
        self, bot: Bot, limit: int, timeout: float, terminated: asyncio.Event
    ) -> list[dict[str, Any]]:
        def ready() -> bool:
            return terminated.is_set() or any(_waiting(bot))

        await self._world.changed()
        try:
            await self._world.wait_until(ready, timeout if not ready() else 1)
        except TimeoutError:
            return []
        if terminated.is_set():
            raise Conflict
        updates = _waiting(bot)[:limit]
        for update in updates:
            update.fetched.append(now())
            update.again = False
        return [update.payload for update in updates]

    async def _download(self, request: web.Request) -> web.Response:
        found = self._world.files.get(request.match_info["path"])
        if request.match_info["token"] not in self._world.bots or found is None:
            return web.json_response(TelegramError(404, "Not Found").as_answer(), status=404)
        return web.Response(body=found[1], content_type="application/octet-stream")


def _waiting(bot: Bot) -> list[Update]:
    return [update for update in bot.updates if update.again or not update.confirmed]


def _confirm(bot: Bot, offset: int | None) -> None:
    """Asking for a higher offset confirms what is below it; a negative one keeps only so many of the newest."""
    if offset is None:
        return
    if offset < 0:
        offset = ([0] + [update.id for update in _waiting(bot)])[offset:][0]
    for update in bot.updates:
        if update.id < offset and not update.confirmed:
            update.confirmed = now()


async def _parameters(request: web.Request) -> dict[str, Any]:
    given: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        try:
            return given | await request.json()
        except json.JSONDecodeError:
            raise BadRequest("can't parse JSON object") from None
    return given | dict(await request.post())
