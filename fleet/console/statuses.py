"""A status as people see it: a tone (colour and shape) and a word, never one without the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["ok", "running", "waiting", "failed", "held", "human", "unknown"]


@dataclass(frozen=True, slots=True)
class Status:
    """What a badge shows. The shape follows from the tone; `word` says it to everybody."""

    tone: Tone
    word: str


UNKNOWN = Status("unknown", "Unknown")
PLANNED_STATUS = Status("unknown", "Not built yet")

TURN: dict[str, Status] = {
    "queued": Status("waiting", "Queued"),
    "admitted": Status("running", "Starting"),
    "running": Status("running", "Running"),
    "waiting": Status("human", "Waiting for a person"),
    "replied": Status("ok", "Replied"),
    "refused": Status("held", "Refused"),
    "failed": Status("failed", "Failed"),
    "stopped": Status("held", "Stopped"),
    "interrupted": Status("failed", "Interrupted"),
    "joined": Status("ok", "Taken by the running turn"),
}

ORDER: dict[str, Status] = {
    "stopping": Status("waiting", "Stopping"),
    "quiet": Status("held", "Stopped, verified"),
    "lifted": Status("ok", "Lifted"),
}

DELIVERY: dict[str, Status] = {
    "pending": Status("waiting", "Not delivered yet"),
    "sending": Status("running", "Being delivered"),
    "sent": Status("ok", "Delivered"),
    "partial": Status("failed", "Delivered in part"),
    "failed": Status("failed", "Not delivered"),
    "suppressed": Status("held", "Withheld"),
    "unknown": Status("unknown", "Delivery unknown"),
}

LOGIN: dict[str, Status] = {
    "closed": Status("ok", "In use"),
    "open": Status("held", "Left alone"),
    "tried_next": Status("waiting", "Tried with the next message"),
    "half_open": Status("running", "Being tried"),
    "missing": Status("unknown", "Not set up"),
}

CHECK: dict[str, Status] = {
    "kept": Status("ok", "Checked"),
    "failed": Status("failed", "Failed its check"),
    "stale": Status("waiting", "Not checked in this version"),
    "never": Status("waiting", "Not checked"),
}


def check_status(state: str) -> Status:
    """Return how the last check of an installed CLI went, in words."""
    return CHECK.get(state, UNKNOWN)


def login_status(state: str) -> Status:
    """Return whether a login is used, in words."""
    return LOGIN.get(state, UNKNOWN)


def delivery_status(state: str) -> Status:
    """Return how far an answer got, in words."""
    return DELIVERY.get(state, UNKNOWN)


def turn_status(state: str) -> Status:
    """Return how a turn's state reads; a state we do not know is shown as unknown."""
    return TURN.get(state, UNKNOWN)


def order_status(state: str) -> Status:
    """Return how a kill order's state reads."""
    return ORDER.get(state, UNKNOWN)
