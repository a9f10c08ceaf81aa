"""What the console's templates consume: small frozen values, with nothing left to look up."""

from __future__ import annotations

import datetime as dt
import zlib
from dataclasses import dataclass

from django.utils.safestring import SafeString

from fleet.console.statuses import Status
from fleet.kernel import clock

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
class BotPage:
    """Everything the page of one bot shows."""

    row: BotRow
    owner: str
    manager: BotName | None
    soul: SafeString | None
    soul_version: str
    soul_since: dt.datetime | None
    soul_author: str
    skills: tuple[Skill, ...]
    grants: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, str], ...]
    conversations: tuple[ConversationRow, ...]


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """One conversation in a list."""

    id: int
    bot: BotName
    title: str
    channel: str
    last_message_at: dt.datetime
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class ToolLine:
    """A tool call folded to one line. `seconds` is None while it runs."""

    call: str
    tool: str
    target: str
    status: Status
    seconds: float | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A stretch of the answer between tool calls, as plain text while it is being written."""

    text: str


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """What one reply took. Times in seconds, money in nano-dollars; None is unknown."""

    model: str
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost_nano_usd: int | None
    cost_basis: str
    queue_seconds: float | None
    engine_seconds: float | None

    @property
    def tokens(self) -> int:
        """Return all tokens, cached ones included."""
        return self.tokens_in + self.tokens_cached + self.tokens_out


@dataclass(frozen=True, slots=True)
class TranscriptItem:
    """One thing in a transcript: said by a person or a bot, or told by the system with the turn's end."""

    id: str
    author: str
    name: str
    at: dt.datetime
    body: SafeString
    turn: int | None = None
    tools: tuple[ToolLine, ...] = ()
    receipt: ReceiptView | None = None
    status: Status | None = None
    next_step: str = ""
    delivery: Status | None = None


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn that is not over: its state in words, and what it wrote so far. `sequence` is the last event shown."""

    id: int
    status: Status
    label: str
    since: dt.datetime
    sequence: int = 0
    parts: tuple[TextPart | ToolLine, ...] = ()
    may_stop: bool = False

    @property
    def seconds(self) -> float:
        """Return how long it has taken until now."""
        return (clock.now() - self.since).total_seconds()


@dataclass(frozen=True, slots=True)
class ChatPage:
    """A conversation as its page shows it. `older` is the id to page back from, empty at the beginning."""

    row: ConversationRow
    items: tuple[TranscriptItem, ...]
    turns: tuple[TurnView, ...]
    older: str = ""
    newer: bool = False
    may_talk: bool = True
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class KillBadge:
    """Whether the fleet runs, for the strip."""

    tone: str
    word: str


@dataclass(frozen=True, slots=True)
class OrderView:
    """A kill order: what it reaches, how hard, who gave it, why, and how far it got."""

    id: int
    scope: str
    mode: str
    status: Status
    reason: str
    by: str
    ordered_at: dt.datetime
    quiet_at: dt.datetime | None
    lifted_at: dt.datetime | None
    lifted_by: str = ""
    seconds_to_quiet: float | None = None
    alive: int = 0
    target: str = ""

    @property
    def scope_words(self) -> str:
        """Return what the order reaches, in words: `Whole fleet`, or the bot's name."""
        return "Whole fleet" if self.scope == "fleet" else self.target or f"One {self.scope}"


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One thing an order had to stop. `seconds` is its time to quiet, None while it still lives."""

    kind: str
    name: str
    detail: str
    seconds: float | None
    ending: str

    @property
    def status(self) -> Status:
        """Return whether it was seen to be gone."""
        return Status("failed", "Still alive") if self.seconds is None else Status("ok", "Gone")


@dataclass(frozen=True, slots=True)
class StopReceipt:
    """The proof of a stop: what still lives first, then everything that was seen to be gone."""

    order: OrderView
    alive: tuple[ReceiptLine, ...] = ()
    gone: tuple[ReceiptLine, ...] = ()

    @property
    def lines(self) -> tuple[ReceiptLine, ...]:
        """Return everything, what still lives first."""
        return self.alive + self.gone


@dataclass(frozen=True, slots=True)
class KillView:
    """The kill switch: what runs now, which orders are in force, and the receipts of earlier ones."""

    running: int
    queued: int
    channels: int
    counted_at: dt.datetime
    in_force: tuple[OrderView, ...] = ()
    receipts: tuple[OrderView, ...] = ()
    older: int | None = None


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
    fresh_token: str = ""
    pairing_code: str = ""
    pairing_until: dt.datetime | None = None
