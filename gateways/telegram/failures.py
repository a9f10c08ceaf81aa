"""What a refusal or a broken connection means for the message that was being sent."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import Enum

import httpx
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)

# The request had not left us: trying again cannot repeat anything.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Meaning(Enum):
    """What to do with the message."""

    LATER = "later"
    NEVER = "never"
    DOUBT = "doubt"
    PLAIN = "plain"
    NO_THREAD = "no_thread"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: its meaning, a sentence for people, and for some meanings a wait or a new chat."""

    meaning: Meaning
    sentence: str = ""
    retry_after: float | None = None
    chat_id: int | None = None


def understand(error: TelegramError) -> Failure:
    """Return what `error`, raised by a sending call, means.

    Doubt is everything after the request may have reached Telegram: a lost answer, an answer that is no answer, a failing server.
    """
    if isinstance(error, RetryAfter):
        return Failure(Meaning.LATER, "Telegram asks to wait.", retry_after=seconds_to_wait(error))
    if isinstance(error, ChatMigrated):
        return Failure(Meaning.MOVED, "The group became a supergroup.", chat_id=error.new_chat_id)
    if isinstance(error, InvalidToken):
        return Failure(Meaning.LATER, "Telegram does not accept the bot's token.", retry_after=30)
    if isinstance(error, Forbidden):
        return Failure(Meaning.NEVER, f"Telegram refused: {error.message}.")
    if isinstance(error, BadRequest):
        return _bad_request(error)
    if isinstance(error.__cause__, _NOT_SENT):
        return Failure(Meaning.LATER, "Telegram could not be reached.")
    return Failure(Meaning.DOUBT, "Telegram's answer did not come.")


def _bad_request(error: BadRequest) -> Failure:
    said = error.message.lower()
    if "parse entities" in said:
        return Failure(Meaning.PLAIN)
    if "thread not found" in said:
        return Failure(Meaning.NO_THREAD)
    return Failure(Meaning.NEVER, f"Telegram refused: {error.message}.")


def seconds_to_wait(error: RetryAfter) -> float:
    """Return how long Telegram wants us to be quiet; the library gives a number or a timedelta."""
    wait = error.retry_after
    return wait.total_seconds() if isinstance(wait, dt.timedelta) else float(wait)


def is_refusal(error: TelegramError) -> bool:
    """Return whether Telegram itself said no, as opposed to not having been reached."""
    return isinstance(error, BadRequest | Forbidden) or not isinstance(error, NetworkError)
