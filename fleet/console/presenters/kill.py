"""The kill switch and its receipts as the console shows them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fleet.console.statuses import Status


@dataclass(frozen=True, slots=True)
class KillBadge:
    """Whether the fleet runs, for the strip."""

    tone: str
    word: str


@dataclass(frozen=True, slots=True)
class OrderView:
    """A kill order: what it reaches, how hard, who gave it, why, and how far it got. `holds`: what waits and may start without it."""

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
    holds: int = 0

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
    more_in_force: int | None = None
