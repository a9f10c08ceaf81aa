"""How often a bot may write into a chat.

Telegram tolerates short bursts, then about one message a second in a chat and 20 a minute in a group (core.telegram.org/bots/faq).
Refused floods make the next penalty longer, so we stay below the limits ourselves; a penalty that comes all the same silences the chat
for everything we send there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BURST = 5
PRIVATE_SECONDS = 1.0
GROUP_SECONDS = 3.0


Chat = tuple[str, int]
"""A gateway account and the number of a chat: each bot has an allowance of its own."""


class Pace:
    """The allowance of every chat: a bucket of `BURST` messages that refills by one in so many seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # For each chat, the moment at which its bucket is full again.
        self._full_at: dict[Chat, float] = {}
        self._quiet_until: dict[Chat, float] = {}

    def wait(self, chat: Chat) -> float:
        """Return how many seconds from now the next message may go to `chat`."""
        free_at = self._full_at.get(chat, 0.0) - (BURST - 1) * _step(chat)
        return max(free_at, self._quiet_until.get(chat, 0.0), self._now()) - self._now()

    def count(self, chat: Chat) -> None:
        """Note that a message goes to `chat` now."""
        self._full_at[chat] = max(self._full_at.get(chat, 0.0), self._now()) + _step(chat)

    def silence(self, chat: Chat, seconds: float) -> None:
        """Note that Telegram wants nothing more in this chat for so long."""
        self._quiet_until[chat] = max(self._quiet_until.get(chat, 0.0), self._now() + seconds)

    def forget(self) -> None:
        """Drop the chats that have their whole allowance again."""
        now = self._now()
        self._full_at = {chat: moment for chat, moment in self._full_at.items() if moment > now}
        self._quiet_until = {chat: moment for chat, moment in self._quiet_until.items() if moment > now}


def _step(chat: Chat) -> float:
    """Return the seconds in which a message is earned back; groups have negative numbers."""
    return GROUP_SECONDS if chat[1] < 0 else PRIVATE_SECONDS
