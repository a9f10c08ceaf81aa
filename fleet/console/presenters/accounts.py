"""A person's own page."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fleet.console.presenters.bots import BotName
from fleet.console.statuses import Status


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A personal API token; its text was shown once and is not kept."""

    id: int
    name: str
    prefix: str
    created_at: dt.datetime
    last_used_at: dt.datetime | None
    expires_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """A bot's Telegram account: whether a token is set (never which one) and when it last answered."""

    bot: BotName
    status: Status
    seen_at: dt.datetime | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class AccountPage:
    """What a person's own page shows."""

    chat_accounts: tuple[tuple[str, str, dt.datetime], ...] = ()
    tokens: tuple[TokenRow, ...] = ()
    gateways: tuple[GatewayRow, ...] = ()
    more_chats: int | None = None
    more_tokens: int | None = None
    more_gateways: int | None = None
    fresh_token: str = ""
    pairing_code: str = ""
    pairing_until: dt.datetime | None = None
