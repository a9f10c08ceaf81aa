"""The connection to the Bot API: two pools of kept connections shared by all bots, and one Bot for each token."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
from django.conf import settings
from telegram import Bot
from telegram.request import HTTPXRequest

# What we ask getUpdates for; Telegram keeps back everything else.
UPDATE_KINDS = ["message", "edited_message", "callback_query", "my_chat_member"]
POLL_SECONDS = 25
_POLL_SLACK_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
# Telegram's answer to a call; with the connection's time it stays well below what the outbox allows for a delivery.
_ANSWER_SECONDS = 15.0
# httpx forgets an idle connection after 5 s, and a new one costs a TLS handshake just when an answer is ready.
_KEEP_SECONDS = 60.0


class PollingBot(Bot):
    """A Bot that returns updates as Telegram worded them, so that one that cannot be parsed does not hide the others."""

    async def fetch(self, *, offset: int | None, seconds: int = POLL_SECONDS) -> list[dict[str, Any]]:
        """Wait up to so many seconds for updates from `offset` on; asking confirms everything below `offset`."""
        asked = {"offset": offset, "timeout": seconds, "allowed_updates": UPDATE_KINDS}
        updates: list[dict[str, Any]] = await self._post(
            "getUpdates", asked, read_timeout=seconds + _POLL_SLACK_SECONDS
        )
        return updates


class Connections:
    """Makes bots that share their connections. All bots talk to one host, so one warm connection serves them all."""

    def __init__(self) -> None:
        certificates = httpx.create_ssl_context()  # a megabyte each, so one for both
        self._polls = _request(connections=512, certificates=certificates)
        self._calls = _request(connections=64, certificates=certificates)

    def bot(self, token: str) -> PollingBot:
        """Return a Bot for `token`; nothing is sent yet."""
        return PollingBot(
            token,
            base_url=f"{settings.TELEGRAM_API_ROOT}/bot",
            base_file_url=f"{settings.TELEGRAM_API_ROOT}/file/bot",
            request=self._calls,
            get_updates_request=self._polls,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._polls.shutdown()
        await self._calls.shutdown()


def _request(*, connections: int, certificates: ssl.SSLContext) -> HTTPXRequest:
    limits = httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEEP_SECONDS
    )
    return HTTPXRequest(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_ANSWER_SECONDS,
        write_timeout=_ANSWER_SECONDS,
        pool_timeout=_CONNECT_SECONDS,
        httpx_kwargs={"limits": limits, "verify": certificates},
    )
