"""From an update to the inbox: the row first, then, without waiting for anybody's hint, what it sets going."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from weakref import WeakValueDictionary

import structlog
from telegram import CallbackQuery, Update
from telegram.error import TelegramError

from conversations import actions as conversation_actions
from conversations.actions import Received
from conversations.ports import UnifiedMessage
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import StateConflict
from gateways.telegram.inbound import Heard, read
from gateways.telegram.letter import Address
from gateways.telegram.line import Line
from gateways.telegram.presence import Presence
from gateways.threads import DatabaseThreads

log = structlog.get_logger(__name__)
BY = Actor.system("gateway:telegram")


class Inbox:
    """Stores what people say. `heard` collects the accounts that had a real message since somebody last emptied it."""

    def __init__(self, database: DatabaseThreads, presence: Presence) -> None:
        self.heard: set[str] = set()
        self._database = database
        self._presence = presence
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, raw: dict[str, Any], line: Line) -> None:
        """Store one update. When this returns, its row is committed, or it needs none: Telegram may be told.

        Raises DatabaseError when it could not be stored.
        """
        update = _parse(raw, line)
        if update is None:
            return
        if update.callback_query:
            self._start(_decline_press(update.callback_query))
        heard = read(update, line)
        if heard:
            await self._store(heard, line)

    async def close(self, seconds: float) -> None:
        """Let what is under way come to its end, for at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def _store(self, heard: Heard, line: Line) -> None:
        try:
            received = await self._database.call(
                conversation_actions.receive, heard.message, by=BY, refusal=heard.refusal
            )
        except StateConflict as error:
            log.warning("telegram.event_reused", event=heard.message.event_id, sentence=error.sentence)
            return
        self.heard.add(line.key)
        if heard.refusal is None:
            lock = self._lock(heard.message)
            self._start(self._process(received, heard.message, line, lock))

    def _lock(self, message: UnifiedMessage) -> asyncio.Lock:
        """Return the chat's lock. Its waiters go in the order in which they came, and so do the messages of a chat."""
        return self._locks.setdefault((message.account, message.chat_id), asyncio.Lock())

    async def _process(self, received: Received, message: UnifiedMessage, line: Line, turn: asyncio.Lock) -> None:
        async with turn:
            try:
                intake = await self._database.call(conversation_actions.process, received.inbound_id)
            except Exception:
                log.exception("telegram.left_to_sweep", inbound=received.inbound_id)
                return
        if intake.turn_id is not None and not received.duplicate:
            address = Address.of(message.chat_id, message.thread_id)
            self._presence.begin(intake.turn_id, line, chat_id=address.chat_id, thread_id=address.thread_id)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _parse(raw: dict[str, Any], line: Line) -> Update | None:
    try:
        return Update.de_json(raw, line.bot)
    except Exception:
        # Telegram changed something. Nobody can be answered; the other updates must not wait behind it.
        log.exception("telegram.update_unreadable", account=line.key, update=raw.get("update_id"), kinds=list(raw))
        return None


async def _decline_press(query: CallbackQuery) -> None:
    """Answer a button, so that the person's client stops waiting; Fleet sends none of them yet."""
    try:
        await query.answer("This button has no effect.")
    except TelegramError as error:
        log.debug("telegram.press_unanswered", error=error.message)
