"""The sign "typing …" in the chats where a bot is at work: pure courtesy, dropped whenever it could be in the way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from django import db
from telegram.constants import ChatAction
from telegram.error import TelegramError

from gateways import queries
from gateways.telegram.line import Line
from gateways.telegram.pace import Pace
from gateways.threads import DatabaseThreads

# Telegram shows it for 5 s.
REPEAT_SECONDS = 4.5
LONGEST_SECONDS = 1200.0


@dataclass(frozen=True, slots=True)
class Sign:
    """Where the sign is shown, and until when at most."""

    line: Line
    chat_id: int
    thread_id: int | None
    ends: float


class Presence:
    """Shows for each running turn that somebody works on it.

    A call of its own over the same warm connections: it never holds the answer up, and it leaves a connection open for it.
    """

    def __init__(self, database: DatabaseThreads, pace: Pace) -> None:
        self._database = database
        self._pace = pace
        self._signs: dict[int, Sign] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def begin(self, turn_id: int, line: Line, *, chat_id: int, thread_id: int | None) -> None:
        """Show the sign for this turn until it ends."""
        if turn_id not in self._signs:
            sign = Sign(line, chat_id, thread_id, time.monotonic() + LONGEST_SECONDS)
            self._signs[turn_id] = sign
            self._show(sign)

    def end(self, turn_id: int | None) -> None:
        """Show it no more: the turn has something to say."""
        if turn_id is not None:
            self._signs.pop(turn_id, None)

    async def run(self) -> None:
        """Repeat every sign while its turn is at work."""
        while True:
            await asyncio.sleep(REPEAT_SECONDS)
            self._pace.forget()
            if not self._signs:
                continue
            with contextlib.suppress(db.Error):
                await self._drop_ended()
            for sign in self._signs.values():
                self._show(sign)

    async def _drop_ended(self) -> None:
        asked = list(self._signs)
        at_work = await self._database.call(queries.turns_at_work, asked)
        for turn_id in asked:
            sign = self._signs.get(turn_id)
            if sign and (turn_id not in at_work or sign.ends < time.monotonic()):
                self.end(turn_id)

    def _show(self, sign: Sign) -> None:
        if self._pace.wait((sign.line.key, sign.chat_id)) > 0:
            return
        call = asyncio.create_task(_call(sign))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)


async def _call(sign: Sign) -> None:
    with contextlib.suppress(TelegramError):
        await sign.line.bot.send_chat_action(
            sign.chat_id, ChatAction.TYPING, message_thread_id=sign.thread_id, read_timeout=REPEAT_SECONDS
        )
