"""Conversations as the console shows them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.utils.safestring import SafeString

from execution.states import AT_LEAST, UNKNOWN
from fleet.console import wording
from fleet.console.presenters.bots import BotName
from fleet.console.statuses import Status
from fleet.kernel import clock


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
    denied: bool = False


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
    def cost(self) -> str:
        """Return what it cost, in a few words."""
        return wording.cost(self.cost_nano_usd, self.cost_basis)

    @property
    def is_least(self) -> bool:
        """Return whether it cost more than is known: it was cut off before all of it was counted."""
        return self.cost_basis == AT_LEAST

    @property
    def is_unknown(self) -> bool:
        """Return whether it spent and nobody knows how much: a cost of the same basis is one at a price that is not known."""
        return self.cost_nano_usd is None and self.cost_basis == UNKNOWN

    @property
    def tokens(self) -> int:
        """Return all tokens, cached ones included."""
        return self.tokens_in + self.tokens_cached + self.tokens_out


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """How far a message got on its way. `reason` says why it is not there, `offer` what can be done about it, if anything.

    `moving` while it may still change by itself; `text` only where the transcript has no message of its own for it.
    """

    id: int
    status: Status
    at: dt.datetime
    reason: str = ""
    offer: str = ""
    caution: str = ""
    moving: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class TranscriptItem:
    """One thing in a transcript: said by a person or a bot, or told by the system with the turn's end.

    `undelivered` are notices that stand in no message, sent after this one, that did not arrive.
    """

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
    delivery: DeliveryView | None = None
    undelivered: tuple[DeliveryView, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn that is not over: its state in words, and what it wrote so far. `sequence` is the last event shown of its `execution`."""

    id: int
    status: Status
    label: str
    since: dt.datetime
    execution: int = 0
    sequence: int = 0
    parts: tuple[TextPart | ToolLine, ...] = ()
    may_stop: bool = False

    @property
    def seconds(self) -> float:
        """Return how long it has taken until now."""
        return (clock.now() - self.since).total_seconds()


@dataclass(frozen=True, slots=True)
class BusyChoice:
    """One busy mode: its value, a name, what it means, and whether it is the one in force."""

    value: str
    name: str
    meaning: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class BusyView:
    """What happens here to a message that finds the bot busy: the name of the mode, and what can be chosen."""

    name: str
    choices: tuple[BusyChoice, ...]


@dataclass(frozen=True, slots=True)
class ChatPage:
    """A conversation as its page shows it. `older` is the id to page back from, empty at the beginning.

    `busy` only for whom may change it.
    """

    row: ConversationRow
    items: tuple[TranscriptItem, ...]
    turns: tuple[TurnView, ...]
    older: str = ""
    newer: bool = False
    may_talk: bool = True
    why_not: str = ""
    busy: BusyView | None = None
