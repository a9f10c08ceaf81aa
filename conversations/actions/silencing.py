"""What a kill order silences here: waiting turns are refused with its reason, and channels send no more answers."""

from __future__ import annotations

from conversations.actions.lanes import refuse_queued
from conversations.models import Delivery, Turn
from conversations.states import DeliveryKind, DeliveryState
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.models import KillOrder, StopLine

_BY = Actor.system("kill")


def silence(order_id: int) -> int:
    """Close the queue and channel lines of an order's receipt that can be closed now; return how many.

    A channel is quiet once no answer of a bot is on its way through it; the sweep asks again until all are.
    """
    order = KillOrder.objects.get(pk=order_id)
    return sum(_close(order, line) for line in governance_queries.open_lines(order) if line.kind != "process")


def _close(order: KillOrder, line: StopLine) -> bool:
    if line.kind == "queue":
        killed = _refuse(order, int(line.subject))
        _quiet(order, line, killed=killed, sentence="refused" if killed else "had left the queue by itself")
        return True
    if _answers_on_their_way(line.subject):
        return False
    _quiet(order, line, killed=True, sentence="sends no more answers; messages in are stored and refused")
    return True


def _refuse(order: KillOrder, turn_id: int) -> bool:
    refusal = Refused(
        "Your message was not answered.",
        why=f"{order.ordered_by} stopped the bots: {order.reason}.",
        next_step="Send it again when they have been started again.",
        code="killed",
    )
    return refuse_queued(Turn.objects.get(pk=turn_id), refusal, by=_BY)


def _answers_on_their_way(account: str) -> bool:
    rows = Delivery.objects.filter(account=account, state=DeliveryState.SENDING)
    return rows.exclude(kind=DeliveryKind.NOTICE).exists()


def _quiet(order: KillOrder, line: StopLine, *, killed: bool, sentence: str) -> None:
    governance_actions.record_quiet(
        order=order, kind=line.kind, subject=line.subject, by=_BY, killed=killed, sentence=sentence
    )
