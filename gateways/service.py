"""The gateway process: one asyncio loop that serves every account of every platform that has an adapter."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Collection

import structlog
from django import db
from django.conf import settings

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError
from gateways import actions, queries
from gateways.hints import listen, wait_for
from gateways.models import GatewayAccount, GatewayProcess
from gateways.ports import Adapter, Surroundings
from gateways.registry import ADAPTERS, load
from gateways.threads import DatabaseThreads
from gateways.warmup import warm_up

log = structlog.get_logger(__name__)
BY = Actor.system("gateways")
LOOK_SECONDS = 2.0
_DATABASE_TRIES = 12  # of DatabaseThreads' patience each: about a minute


async def serve(only: Collection[str] = ()) -> None:
    """Serve all accounts, or those of the bots named in `only`, until the process is told to end."""
    service = Service(only)
    work = asyncio.create_task(service.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        await service.close()


class Service:
    """Looks every few seconds, and at once when told, which accounts there are, and hands them to the adapters."""

    def __init__(self, only: Collection[str] = ()) -> None:
        self._only = only
        self._database = DatabaseThreads()
        self._process: GatewayProcess | None = None
        self._adapters: dict[str, Adapter] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Register, take over the environment's tokens, and serve until cancelled."""
        self._process = await self._register()
        await self._database.call(actions.take_over_tokens, settings.FLEET_TELEGRAM_TOKENS, by=BY)
        log.info("gateways.ready", process=str(self._process))
        async with asyncio.TaskGroup() as group:
            group.create_task(listen("gateways", heard=lambda _hint: self._changed.set()))
            group.create_task(self._warm_up())
            group.create_task(self._watch(Surroundings(self._database, self._process), group))

    async def close(self) -> None:
        """End in order: adapters first, they still need the database."""
        for adapter in self._adapters.values():
            await adapter.close()
        if self._process is not None:
            with contextlib.suppress(db.Error):
                await self._database.call(actions.stop_process, self._process, by=BY)
        await self._database.close()

    async def _register(self) -> GatewayProcess:
        for remaining in reversed(range(_DATABASE_TRIES)):
            try:
                return await self._database.call(actions.start_process, by=BY)
            except db.Error:
                if not remaining:
                    raise
        raise AssertionError("unreachable")

    async def _warm_up(self) -> None:
        with contextlib.suppress(db.Error, FleetError):
            await self._database.call(warm_up)

    async def _watch(self, surroundings: Surroundings, group: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            try:
                accounts = await self._database.call(queries.accounts_to_serve, only=self._only)
                await self._distribute(accounts, surroundings, group)
            except db.Error as error:
                log.warning("gateways.accounts_unreachable", error=str(error))
            await wait_for(self._changed, LOOK_SECONDS)

    async def _distribute(
        self, accounts: list[GatewayAccount], surroundings: Surroundings, group: asyncio.TaskGroup
    ) -> None:
        for platform in ADAPTERS:
            mine = [account for account in accounts if account.platform == platform]
            if mine and platform not in self._adapters:
                adapter = self._adapters[platform] = load(platform, surroundings)
                group.create_task(adapter.run())
                gc.freeze()  # what was imported stays; looking through it again costs milliseconds in the middle of a message
            if platform in self._adapters:
                await self._adapters[platform].serve(mine)
