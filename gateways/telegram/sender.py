"""The outbox's way to Telegram: all chats at once, each chat in order, everything through one pace."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import ParamSpec

import structlog
from django import db

from conversations import actions as conversation_actions
from conversations.actions.outbox import DOUBT_MARK
from conversations.models import Delivery
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import StateConflict
from gateways.hints import wait_for
from gateways.telegram.failures import Failure, Meaning
from gateways.telegram.letter import Address, Letter
from gateways.telegram.line import Line
from gateways.telegram.pace import Pace
from gateways.telegram.presence import Presence
from gateways.telegram.rendering import Part, marked, parts
from gateways.threads import DatabaseThreads

log = structlog.get_logger(__name__)
BY = Actor.system("gateway:telegram")
P = ParamSpec("P")

LOOK_SECONDS = 1.0
MOST_IN_FLIGHT = 50
# The outbox takes a delivery for lost after a minute. Whoever would need longer hands it back and goes on later.
_HAND_BACK_AFTER = 30.0
_LONGEST_WAIT = 5.0
# Rendering longer texts takes long enough to hold other chats up.
_RENDER_ASIDE = 8000


class Sender:
    """Sends what the outbox holds for the accounts on `lines`. A hint wakes it; without hints it looks every second."""

    def __init__(self, database: DatabaseThreads, pace: Pace, presence: Presence) -> None:
        self.lines: dict[str, Line] = {}
        self._database = database
        self._pace = pace
        self._presence = presence
        self._woken = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        # Groups that became supergroups while we were talking to them: (account, old number) → new number.
        self._moved: dict[tuple[str, int], int] = {}

    def wake(self) -> None:
        """Look into the outbox now."""
        self._woken.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._woken.clear()
            try:
                await self._send_due()
            except db.Error as error:
                log.warning("telegram.outbox_unreachable", error=str(error))
            await wait_for(self._woken, LOOK_SECONDS)

    async def close(self, seconds: float) -> None:
        """Let what is being sent come to its end, for at most so long; what does not, the sweep finds in doubt."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=seconds)

    async def _send_due(self) -> None:
        room = MOST_IN_FLIGHT - len(self._sending)
        lines = dict(
            self.lines
        )  # an account may leave while the outbox is asked; what was claimed for it is still sent
        if not lines or room <= 0:
            return
        due = await self._database.call(conversation_actions.claim_deliveries, list(lines), limit=room, by=BY)
        for delivery in due:
            task = asyncio.create_task(self._send(delivery, lines[delivery.account]))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self.wake()  # the next one of this chat may go now

    async def _send(self, delivery: Delivery, line: Line) -> None:
        try:
            await self._deliver(delivery, line)
        except StateConflict:
            log.info("telegram.delivery_settled_elsewhere", delivery=delivery.pk)
        except Exception:
            log.exception("telegram.delivery_failed", delivery=delivery.pk)
            with contextlib.suppress(StateConflict):
                await self._settle(delivery, Failure(Meaning.DOUBT))  # nobody knows how far it got

    async def _deliver(self, delivery: Delivery, line: Line) -> None:
        self._presence.end(delivery.turn_id)
        began = time.monotonic()
        address = self._address(delivery)
        receipts: list[str] = list(delivery.receipts)
        letters = await _parts_left(delivery)
        for number, part in enumerate(letters, 1):
            late = time.monotonic() - began > _HAND_BACK_AFTER
            if late or not await self._may_send((line.key, address.chat_id)):
                wait = self._pace.wait((line.key, address.chat_id))
                return await self._settle(delivery, Failure(Meaning.LATER, "Waits for its turn.", max(wait, 0.1)))
            posted = await Letter.of(delivery, part, address, first=not receipts).post(line.bot)
            address = self._note(line, address, posted.address)
            if posted.failure:
                return await self._failed(delivery, line, address, posted.failure)
            receipts.append(posted.receipt)
            if number < len(letters):
                await self._tell(conversation_actions.delivery_receipt, delivery_id=delivery.pk, receipt=posted.receipt)
        await self._tell(conversation_actions.delivered, delivery_id=delivery.pk, receipts=receipts, by=BY)
        return None

    def _address(self, delivery: Delivery) -> Address:
        address = Address.of(delivery.chat_id, delivery.thread_id)
        moved = self._moved.get((delivery.account, address.chat_id))
        return Address(moved) if moved else address

    def _note(self, line: Line, asked: Address, used: Address) -> Address:
        if used.chat_id != asked.chat_id:
            self._moved[(line.key, asked.chat_id)] = used.chat_id
        return used

    async def _may_send(self, chat: tuple[str, int]) -> bool:
        """Wait for the chat's pace, and count the message; False when the wait is too long to stand here."""
        wait = self._pace.wait(chat)
        if wait > _LONGEST_WAIT:
            return False
        if wait > 0:
            await asyncio.sleep(wait)
        self._pace.count(chat)
        return True

    async def _failed(self, delivery: Delivery, line: Line, address: Address, failure: Failure) -> None:
        if failure.meaning == Meaning.LATER and failure.retry_after:
            self._pace.silence((line.key, address.chat_id), failure.retry_after)
        await self._settle(delivery, failure)

    async def _settle(self, delivery: Delivery, failure: Failure) -> None:
        """Tell the outbox how far it got."""
        if failure.meaning == Meaning.DOUBT:
            await self._tell(conversation_actions.delivery_unknown, delivery_id=delivery.pk, by=BY)
            return
        await self._tell(
            conversation_actions.delivery_failed,
            delivery_id=delivery.pk,
            sentence=failure.sentence,
            permanent=failure.meaning != Meaning.LATER,
            retry_after_seconds=failure.retry_after,
            by=BY,
        )

    async def _tell(self, report: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Report to the outbox, however long the database is away: a receipt that got lost would be a message sent twice."""
        while True:
            try:
                await self._database.call(report, *args, **kwargs)
                return
            except db.OperationalError as error:
                log.warning("telegram.report_postponed", error=str(error))
                await asyncio.sleep(LOOK_SECONDS)


async def _parts_left(delivery: Delivery) -> list[Part]:
    """Return the parts without a receipt; the first of them carries the mark when it may have arrived before."""
    text = delivery.text
    every = await asyncio.to_thread(parts, text) if len(text) > _RENDER_ASIDE else parts(text)
    left = every[len(delivery.receipts) :]
    if delivery.doubtful and left:
        left[0] = marked(left[0], DOUBT_MARK.strip())
    return left
