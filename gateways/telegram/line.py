"""A bot's line to Telegram: whose it is, and the Bot that talks over it."""

from __future__ import annotations

from dataclasses import dataclass

from gateways.telegram.bot import PollingBot


@dataclass(slots=True)
class Line:
    """One account while it is served. `username` is empty until Telegram has told it."""

    key: str
    identity_slug: str
    token_hash: str
    bot: PollingBot
    username: str = ""

    @property
    def bot_id(self) -> int:
        """Return the bot's own number, the first part of every token."""
        return int(self.bot.token.partition(":")[0])
