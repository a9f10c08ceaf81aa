"""One part of a delivery on its way: where it goes, how it is written, and how it changes when Telegram objects."""

from __future__ import annotations

from dataclasses import dataclass, replace

from telegram import LinkPreviewOptions, ReplyParameters
from telegram.constants import ParseMode
from telegram.error import TelegramError

from conversations.models import Delivery
from gateways.telegram.bot import PollingBot
from gateways.telegram.failures import Failure, Meaning, understand
from gateways.telegram.rendering import Part

GENERAL_TOPIC = "1"
_MOST_CHANGES = 3


@dataclass(frozen=True, slots=True)
class Address:
    """A chat and, in a group with topics, a thread. The general topic has no number on sends."""

    chat_id: int
    thread_id: int | None = None

    @classmethod
    def of(cls, chat_id: str, thread_id: str) -> Address:
        """Return the address as conversations write it."""
        return cls(int(chat_id), int(thread_id) if thread_id and thread_id != GENERAL_TOPIC else None)

    @property
    def is_group(self) -> bool:
        """Return whether several people read there."""
        return self.chat_id < 0


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to send. `reply_to` is the message it answers, shown in groups only: in a private chat there is nobody else."""

    part: Part
    address: Address
    reply_to: int | None = None
    plain: bool = False

    @classmethod
    def of(cls, delivery: Delivery, part: Part, address: Address, *, first: bool) -> Letter:
        """Return the letter for one part of a delivery."""
        answers = delivery.reply_to if first and address.is_group else ""
        return cls(part, address, int(answers) if answers.isdecimal() else None)

    async def post(self, bot: PollingBot) -> Posted:
        """Send it, in the form and to the place Telegram accepts."""
        letter = self
        for _ in range(_MOST_CHANGES):
            try:
                return Posted(letter.address, await letter._send(bot))
            except TelegramError as error:
                failure = understand(error)
            changed = letter._changed(failure)
            if changed is None:
                return Posted(letter.address, "", failure)
            letter = changed
        return Posted(letter.address, "", failure)

    async def _send(self, bot: PollingBot) -> str:
        reply = ReplyParameters(self.reply_to, allow_sending_without_reply=True) if self.reply_to else None
        message = await bot.send_message(
            self.address.chat_id,
            self.part.plain if self.plain else self.part.html,
            parse_mode=None if self.plain else ParseMode.HTML,
            message_thread_id=self.address.thread_id,
            reply_parameters=reply,
            link_preview_options=LinkPreviewOptions(is_disabled=True),
        )
        return str(message.message_id)

    def _changed(self, failure: Failure) -> Letter | None:
        """Return the letter as Telegram may accept it, or None when nothing can be changed."""
        if failure.meaning == Meaning.PLAIN and not self.plain:
            return replace(self, plain=True)
        if failure.meaning == Meaning.NO_THREAD and self.address.thread_id is not None:
            return replace(self, address=replace(self.address, thread_id=None))
        if failure.meaning == Meaning.MOVED and failure.chat_id is not None:
            return replace(self, address=replace(self.address, chat_id=failure.chat_id), reply_to=None)
        return None


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a letter: where it went, and its receipt (the platform's message id) or why there is none."""

    address: Address
    receipt: str
    failure: Failure | None = None
