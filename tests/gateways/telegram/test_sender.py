"""The sender among accounts that come and go."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from gateways.telegram.pace import Pace
from gateways.telegram.sender import Sender


def test_what_was_claimed_for_an_account_that_leaves_meanwhile_is_still_sent(monkeypatch) -> None:
    sent: list[Any] = []

    class Database:
        async def call(self, _claim: Any, _accounts: list[str], **_: Any) -> list[Any]:
            sender.lines.clear()
            return [SimpleNamespace(account="telegram:ada")]

    async def note(_delivery: Any, line: Any) -> None:
        sent.append(line)

    async def look() -> None:
        await sender._send_due()
        await sender.close(5)

    sender = Sender(Database(), Pace(), presence=SimpleNamespace())
    monkeypatch.setattr(sender, "_send", note)
    sender.lines = {"telegram:ada": "ada's line"}
    asyncio.run(look())
    assert sent == ["ada's line"]
