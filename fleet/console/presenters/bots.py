"""Bots as the console shows them."""

from __future__ import annotations

import datetime as dt
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.safestring import SafeString

from fleet.console.statuses import Status

if TYPE_CHECKING:
    from fleet.console.presenters.chats import ConversationRow

HUES = 7


@dataclass(frozen=True, slots=True)
class BotName:
    """A bot as it is named anywhere."""

    slug: str
    name: str
    title: str = ""

    @property
    def initial(self) -> str:
        """Return the letter of the monogram."""
        return (self.name or self.slug or "?")[0].upper()

    @property
    def hue(self) -> int:
        """Return a number from 0 to 6 that stays with the slug; it only helps the eye."""
        return zlib.crc32(self.slug.encode()) % HUES


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent in a window, and what may be; nano-dollars. `limit_nano_usd` is None where nothing limits it."""

    spent_nano_usd: int | None
    limit_nano_usd: int | None
    window: str = "today"

    @property
    def percent(self) -> int | None:
        """Return the share of the limit, 0 to 100; None when either number is missing."""
        if self.spent_nano_usd is None or not self.limit_nano_usd:
            return None
        return min(100, round(100 * self.spent_nano_usd / self.limit_nano_usd))

    @property
    def tone(self) -> str:
        """Return how near the limit is: `running`, `waiting` from 80 %, `failed` at the limit."""
        percent = self.percent or 0
        return "failed" if percent >= 100 else "waiting" if percent >= 80 else "running"


@dataclass(frozen=True, slots=True)
class BotRow:
    """One bot in the list. `activity` says what it does now, `why_idle` the one cause when it does nothing."""

    bot: BotName
    department: str
    provider: str
    model: str
    status: Status
    activity: str
    why_idle: str
    last_activity_at: dt.datetime | None
    spend: Spend


@dataclass(frozen=True, slots=True)
class Skill:
    """A live skill: its folder name, the start of its hash and since when."""

    name: str
    version: str
    since: dt.datetime


@dataclass(frozen=True, slots=True)
class ChainRow:
    """One provider of a bot's chain: what answers with it, and whether it would. `login` names what it thinks with, such as
    `subscription 1a2b3c`; `until` is when a shut login may be tried again.
    """

    place: int
    provider: str
    model: str
    login: str
    status: Status
    sentence: str
    until: dt.datetime | None


@dataclass(frozen=True, slots=True)
class ServerRow:
    """An MCP server of a bot, without any value that it is given. `settings` and `secrets` are names."""

    id: int
    name: str
    reached: str
    target: str
    settings: tuple[str, ...]
    secrets: tuple[tuple[str, bool], ...]
    status: Status
    sentence: str


@dataclass(frozen=True, slots=True)
class Runs:
    """How a bot runs: who answers for it, what it may use from outside, and its walls, limits and processes as names and values.

    `answers` is the provider of its next turn with the model; None while messages wait.
    """

    chain: tuple[ChainRow, ...]
    note: str
    answers: tuple[str, str] | None
    servers: tuple[ServerRow, ...]
    walls: tuple[tuple[str, str], ...]
    hosts: tuple[str, ...]
    limits: tuple[tuple[str, str], ...]
    processes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class BotPage:
    """Everything the page of one bot shows."""

    id: int
    row: BotRow
    owner: str
    manager: BotName | None
    timezone: str
    soul: SafeString | None
    soul_version: str
    soul_since: dt.datetime | None
    soul_author: str
    skills: tuple[Skill, ...]
    grants: tuple[tuple[str, str], ...]
    runs: Runs
    conversations: tuple[ConversationRow, ...]
