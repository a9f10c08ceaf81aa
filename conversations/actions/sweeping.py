"""The sweep: finds again, from PostgreSQL alone, whatever a crash or a lost hint left lying."""

from __future__ import annotations

import datetime as dt

import structlog

from conversations.actions.intake import process
from conversations.actions.lanes import advance
from conversations.actions.outbox import settle_doubt
from conversations.actions.silencing import silence
from conversations.models import InboundMessage
from conversations.queries import conversations_to_advance
from conversations.states import InboundState
from fleet.kernel import clock
from governance import queries as governance_queries

log = structlog.get_logger(__name__)
LEFT_LYING = dt.timedelta(seconds=2)


def sweep(limit: int = 100) -> int:
    """Process messages left in `received`, start turns whose lane is free, settle doubtful deliveries; return how many it touched."""
    touched = 0
    left = InboundMessage.objects.filter(
        state=InboundState.RECEIVED, received_at__lt=clock.db_now(-LEFT_LYING)
    ).order_by("pk")
    for inbound_id in left.values_list("pk", flat=True)[:limit]:
        log.info("sweep.inbound", inbound=inbound_id)
        process(inbound_id)
        touched += 1
    for conversation_id in conversations_to_advance(limit):
        touched += advance(conversation_id) is not None
    for order in governance_queries.active_orders():
        touched += silence(order.pk)
    return touched + settle_doubt()
