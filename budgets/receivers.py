"""When a bot is born in a fleet with budgets, it gets its own."""

from __future__ import annotations

from budgets import actions
from fleet.kernel.events import Event, subscribe
from identities import events as identity_events


@subscribe(identity_events.IDENTITY_CREATED)
def give_new_bot_a_budget(event: Event) -> None:
    """Limit a new bot from its first run on."""
    actions.ensure_identity_budget(slug=event.details["slug"], by=event.by)
