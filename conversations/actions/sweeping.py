"""The sweep: finds again, from PostgreSQL alone, whatever a crash or a lost hint left lying."""

from __future__ import annotations

import datetime as dt

from conversations.actions.intake import process
from conversations.actions.lanes import advance
from conversations.actions.outbox import settle_doubt
from conversations.actions.silencing import silence
from conversations.models import InboundMessage
from conversations.queries import conversations_to_advance
from conversations.states import InboundState
from fleet.kernel import clock
from fleet.kernel.sweeping import each
from governance import queries as governance_queries

LEFT_LYING = dt.timedelta(seconds=2)


def sweep(limit: int = 100) -> int:
    """Process messages left in `received`, start turns whose lane is free, settle doubtful deliveries; return how many it touched."""
    left = InboundMessage.objects.filter(
        state=InboundState.RECEIVED, received_at__lt=clock.db_now(-LEFT_LYING)
    ).order_by("pk")
    orders = [order.pk for order in governance_queries.active_orders()]
    return (
        each(process, list(left.values_list("pk", flat=True)[:limit]), what="inbound")
        + each(advance, conversations_to_advance(limit), what="lane")
        + each(silence, orders, what="kill_order")
        + settle_doubt()
    )
