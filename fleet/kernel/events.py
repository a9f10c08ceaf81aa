"""How a lower app tells a higher one: it publishes a fact, the higher app subscribes in its `receivers.py`.

Subscribers run in the publisher's transaction, in the order of subscription: either all of it happens or none.
Effects outside the database belong into `transaction.on_commit`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleet.kernel.actors import Actor


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: `name` is `<app>.<noun>.<past verb>`; the subject is text, so nobody needs to know it.

    `row` is the subject as the publisher has it at this moment, where it has one: whoever subscribes need not read it again.
    """

    name: str
    by: Actor
    subject_kind: str
    subject_id: str
    details: dict[str, Any] = field(default_factory=dict)
    row: Any = None


Handler = Callable[[Event], None]
_handlers: dict[str, list[Handler]] = defaultdict(list)


def subscribe(*names: str) -> Callable[[Handler], Handler]:
    """Register the decorated function for these event names; registering it twice has no effect."""

    def register(handler: Handler) -> Handler:
        for name in names:
            if handler not in _handlers[name]:
                _handlers[name].append(handler)
        return handler

    return register


def publish(event: Event) -> None:
    """Call every subscriber of this event, here and now."""
    for handler in _handlers[event.name]:
        handler(event)
