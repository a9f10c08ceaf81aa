"""One bot's own loop over getUpdates: a row for every message first, and only then the higher offset that lets Telegram forget it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import structlog
from django import db
from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError

from conversations.ports import all_commands
from fleet.kernel import database
from fleet.kernel.actors import Actor
from gateways import actions
from gateways.telegram.bot import POLL_SECONDS
from gateways.telegram.failures import seconds_to_wait
from gateways.telegram.inbox import Inbox
from gateways.telegram.line import Line
from gateways.threads import DatabaseThreads

log = structlog.get_logger(__name__)
BY = Actor.system("gateway:telegram")

# Longer than a long poll: two pollers that both came back sooner would throw each other out for ever.
CONFLICT_SECONDS = POLL_SECONDS + 5
LONGEST_PAUSE = 30.0
SHORTEST_POLL = 0.25  # some servers do not hold a poll open; without a pause one would ask them as fast as they answer
_TELL_AFTER_FAILURES = 3
_MOST_TRIES = 3

_REFUSED = (
    "Telegram does not accept this token. It may have been revoked, or copied with a mistake. "
    "Make a new one with BotFather and enter it in the console."
)
_CONFLICT = (
    "Another program polls Telegram with this token, so messages may go there. "
    "Stop it, or make a new token with BotFather and enter it in the console."
)
_UNREACHABLE = "Telegram does not answer; trying again. Messages wait there for up to 24 hours."


class NotStored(Exception):
    """An update has no row yet, so Telegram must keep it."""


class Lease:
    """What this process knows of its right to poll: when it was last confirmed. Without a fresh confirmation nothing is asked."""

    # A poll that starts at the end of this time still ends before another process may take over (see actions.LEASE).
    FRESH_SECONDS = actions.LEASE.total_seconds() - POLL_SECONDS - 5

    def __init__(self, confirmed_at: float) -> None:
        self._confirmed_at = confirmed_at

    def confirm(self, at: float) -> None:
        """Note that the database confirmed the lease; `at` is the time.monotonic() before it was asked."""
        self._confirmed_at = at

    async def wait_fresh(self) -> None:
        """Wait until the lease is surely ours for the length of a poll."""
        while time.monotonic() - self._confirmed_at > self.FRESH_SECONDS:  # noqa: ASYNC110 - it is time we wait for
            await asyncio.sleep(0.2)


class Poller:
    """Polls for one line until its token is refused or it is cancelled. Its own troubles stay its own."""

    def __init__(
        self,
        line: Line,
        lease: Lease,
        inbox: Inbox,
        database: DatabaseThreads,
        *,
        sentence: str,
        polled: Callable[[str], None],
    ) -> None:
        self.line = line
        self.lease = lease
        self._inbox = inbox
        self._database = database
        self._polled = polled
        self._sentence = sentence
        self._failures = 0
        # What the next poll confirms. Once Telegram took it, it is not asked again: after a quiet week update ids start
        # anew, perhaps below.
        self._offset: int | None = None
        self._stumbled = (0, 0)  # the update that failed, and how often

    async def run(self) -> None:
        """Poll; return only when Telegram refuses the token."""
        while True:
            await self.lease.wait_fresh()
            try:
                await self._step()
                await self._tell("")
                self._failures = 0
            except InvalidToken:
                await self._give_up()
                return
            except TelegramError as error:
                await asyncio.sleep(await self._pause_after(error))
            except (db.Error, NotStored) as error:
                log.warning("telegram.not_stored", account=self.line.key, error=str(error))
                await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - only spreads load

    async def _step(self) -> None:
        if not self.line.username:
            await self._introduce()
        asked_at = time.monotonic()
        updates = await self.line.bot.fetch(offset=self._offset)
        self._offset = None
        self._polled(self.line.key)
        if not updates and time.monotonic() - asked_at < SHORTEST_POLL:
            await asyncio.sleep(SHORTEST_POLL)
        for raw in updates:
            await self._take(raw)
            self._offset = int(raw["update_id"]) + 1

    async def _take(self, raw: dict[str, Any]) -> None:
        """Store one update. One that fails for a reason of its own is left behind after some tries, lest it block the bot."""
        try:
            await self._inbox.take(raw, self.line)
        except database.AWAY:  # the database is away: not the update's fault
            raise
        except Exception as error:
            update_id = int(raw["update_id"])
            tries = self._stumbled[1] + 1 if self._stumbled[0] == update_id else 1
            self._stumbled = (update_id, tries)
            log.exception("telegram.update_failed", account=self.line.key, update=update_id, tries=tries)
            if tries < _MOST_TRIES:
                raise NotStored(f"update {update_id}") from error

    async def _introduce(self) -> None:
        me = await self.line.bot.get_me()
        self.line.username = me.username or me.first_name
        await self._database.call(actions.introduce, key=self.line.key, username=self.line.username, by=BY)
        with contextlib.suppress(TelegramError):  # a courtesy: the list that appears behind the slash
            await self.line.bot.set_my_commands([(command.name, command.help) for command in all_commands()])

    async def _pause_after(self, error: TelegramError) -> float:
        """Return how many seconds to stay quiet, and tell people what is wrong when it lasts."""
        self._failures += 1
        log.info("telegram.poll_failed", account=self.line.key, error=error.message, failures=self._failures)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - only spreads load
        if isinstance(error, Conflict):
            return await self._pause_after_conflict(error) + jitter
        if isinstance(error, RetryAfter):
            return seconds_to_wait(error) + jitter
        if self._failures >= _TELL_AFTER_FAILURES:
            await self._tell(_UNREACHABLE)
        return min(2.0 ** (self._failures - 1), LONGEST_PAUSE) * jitter

    async def _pause_after_conflict(self, error: Conflict) -> float:
        if "webhook" in error.message.lower():
            with contextlib.suppress(TelegramError):
                await self.line.bot.delete_webhook(drop_pending_updates=False)
            return 1.0
        await self._tell(_CONFLICT)
        return CONFLICT_SECONDS

    async def _give_up(self) -> None:
        log.warning("telegram.token_refused", account=self.line.key)
        await self._database.call(
            actions.reject, key=self.line.key, token_hash=self.line.token_hash, sentence=_REFUSED, by=BY
        )

    async def _tell(self, sentence: str) -> None:
        if sentence == self._sentence:
            return
        with contextlib.suppress(db.Error):
            await self._database.call(actions.report, key=self.line.key, sentence=sentence, by=BY)
            self._sentence = sentence
