"""Telegram inside the gateway process: a poller for each account whose lease we hold, and one sender for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog
from django import db

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError
from gateways import actions, queries
from gateways.hints import listen
from gateways.models import GatewayAccount
from gateways.ports import Surroundings
from gateways.telegram.bot import Connections
from gateways.telegram.inbox import Inbox
from gateways.telegram.line import Line
from gateways.telegram.pace import Pace
from gateways.telegram.poller import Lease, Poller
from gateways.telegram.presence import Presence
from gateways.telegram.rendering import parts
from gateways.telegram.sender import Sender

log = structlog.get_logger(__name__)
BY = Actor.system("gateway:telegram")
RENEW_SECONDS = 5.0
FINISH_SECONDS = 3.0


class TelegramAdapter:
    """All Telegram accounts of this process. By token, so that no token can ever have two pollers here."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._database = surroundings.database
        self._process = surroundings.process
        self._connections = Connections()
        pace = Pace()
        self._presence = Presence(self._database, pace)
        self._sender = Sender(self._database, pace, self._presence)
        self._inbox = Inbox(self._database, self._presence)
        self._pollers: dict[str, tuple[Poller, asyncio.Task[None]]] = {}
        self._polled: set[str] = set()
        self._waiting: set[str] = set()

    async def serve(self, accounts: list[GatewayAccount]) -> None:
        """Poll for exactly these accounts, as far as their tokens are free."""
        wanted = {account.token_hash: account for account in accounts}
        await self._stop(*(digest for digest in self._pollers if not self._is_served_as(digest, wanted.get(digest))))
        missing = [digest for digest in wanted if digest not in self._pollers]
        if missing:
            for digest in await self._database.call(queries.free_tokens, missing, process=self._process):
                await self._start(wanted[digest])
        self._note_waiting({account.key for digest, account in wanted.items() if digest not in self._pollers})
        self._sender.lines = {poller.line.key: poller.line for poller, _ in self._pollers.values()}

    async def run(self) -> None:
        """Keep the leases, send what the outbox holds, and show who is at work."""
        parts("**warm**")  # the parser builds its tables at first use
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_leases())
            group.create_task(self._sender.run())
            group.create_task(self._presence.run())
            group.create_task(listen("outbox:telegram", heard=lambda _hint: self._sender.wake()))

    async def close(self) -> None:
        """Stop polling, let what is under way end, give the leases back."""
        await self._stop(*self._pollers)
        await asyncio.gather(self._inbox.close(FINISH_SECONDS), self._sender.close(FINISH_SECONDS))
        await self._connections.close()

    def _note_waiting(self, keys: set[str]) -> None:
        if keys - self._waiting:
            log.info("telegram.served_elsewhere", accounts=sorted(keys))
        self._waiting = keys

    async def _start(self, account: GatewayAccount) -> None:
        try:
            token = account.read_token()
        except FleetError as error:
            await self._database.call(actions.report, key=account.key, sentence=error.sentence, by=BY)
            return
        asked_at, digest = time.monotonic(), account.token_hash
        if not await self._database.call(actions.take_lease, token_hash=digest, process=self._process, by=BY):
            return
        line = Line(account.key, account.identity.slug, digest, self._connections.bot(token))
        poller = Poller(
            line, Lease(asked_at), self._inbox, self._database, sentence=account.sentence, polled=self._polled.add
        )
        task = asyncio.create_task(poller.run(), name=f"poll:{account.key}")
        task.add_done_callback(_log_crash)
        self._pollers[digest] = (poller, task)
        log.info("telegram.polling", account=account.key)

    def _is_served_as(self, digest: str, account: GatewayAccount | None) -> bool:
        poller, task = self._pollers[digest]
        return account is not None and account.key == poller.line.key and not task.done()

    async def _stop(self, *digests: str) -> None:
        """End pollers, and only then let go of their leases."""
        await self._end(*digests)
        if digests:
            with contextlib.suppress(db.Error):  # they run out by themselves
                await self._database.call(actions.release_leases, token_hashes=digests, process=self._process, by=BY)

    async def _end(self, *digests: str) -> None:
        """End pollers; when this returns, none of them polls any more."""
        ended = [self._pollers.pop(digest) for digest in digests]
        for poller, _ in ended:
            self._sender.lines.pop(poller.line.key, None)
            log.info("telegram.polling_ended", account=poller.line.key)
        running = {task for _, task in ended}
        while running:
            for task in running:
                task.cancel()  # again, should a library in between have swallowed it
            _, running = await asyncio.wait(running, timeout=1)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._renew()
            except db.Error as error:
                log.warning("telegram.leases_not_renewed", error=str(error))

    async def _renew(self) -> None:
        asked_at, digests = time.monotonic(), list(self._pollers)
        kept = await self._database.call(actions.renew_leases, token_hashes=digests, process=self._process)
        for digest in kept & self._pollers.keys():
            self._pollers[digest][0].lease.confirm(asked_at)
        lost = [digest for digest in digests if digest not in kept and digest in self._pollers]
        if lost:
            log.warning("telegram.leases_lost", count=len(lost))
            await self._end(*lost)
        polled, heard = set(self._polled), set(self._inbox.heard)
        if polled or heard:
            self._polled -= polled
            self._inbox.heard -= heard
            await self._database.call(actions.note_activity, polled=polled, heard=heard)


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        log.error("telegram.poller_crashed", task=task.get_name(), exc_info=task.exception())
