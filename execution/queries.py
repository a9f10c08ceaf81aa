"""What others ask about executions, and what a worker asks at every turn of its clocks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from execution.models import Execution, ExecutionEvent, ExecutionQuerySet, Worker
from execution.providers import registry
from execution.states import EXECUTION, LEASED, ExecutionState
from fleet.kernel import clock
from governance import queries as governance_queries
from governance.models import KillOrder
from governance.states import KillMode, KillScope
from identities.models import Identity


@dataclass(frozen=True, slots=True)
class ExecutionMode:
    """Who answers in this installation: `claude` or `mock`, and a sentence for the console's banner (empty for `claude`)."""

    mode: str
    sentence: str


def execution_mode() -> ExecutionMode:
    """Return whether bots answer with the real Claude or with the mock, and how to switch."""
    missing = registry.get("claude").check()
    if not missing:
        return ExecutionMode("claude", "")
    return ExecutionMode(
        "mock",
        f"Bots answer with the built-in mock, which costs nothing and thinks nothing. {missing}",
    )


def provider_for(identity: Identity) -> tuple[str, str]:
    """Return (provider, model) for the next turn of a bot: the first of its chain that is usable here, else the mock."""
    capabilities = registry.first_usable(identity.provider_chain).capabilities
    return capabilities.name, capabilities.model_for(identity.model)


def events_after(execution_id: int, sequence: int = 0, limit: int = 500) -> list[ExecutionEvent]:
    """Return at most `limit` events of an execution that come after `sequence`, in order."""
    later = ExecutionEvent.objects.filter(execution_id=execution_id, sequence__gt=sequence)
    return list(later.order_by("sequence")[:limit])


def live_ids(*, scope: str, scope_id: str) -> list[int]:
    """Return the executions of a kill scope that have not ended."""
    live = Execution.objects.filter(state__in=EXECUTION.live).order_by("pk")
    if scope == KillScope.IDENTITY:
        live = live.filter(identity__slug=scope_id)
    elif scope == KillScope.EXECUTION:
        live = live.filter(pk=int(scope_id))
    elif scope == KillScope.CONVERSATION:
        live = live.filter(conversation_id=int(scope_id))
    return list(live.values_list("pk", flat=True))


def live_workers() -> QuerySet[Worker]:
    """Return the workers that beat within the last 30 seconds."""
    return Worker.objects.filter(stopped_at=None, beat_at__gt=clock.db_now(-dt.timedelta(seconds=30)))


def busy_with_identity() -> Coalesce:
    """Return, as an expression on executions, how many of the same bot hold a lease."""
    held = Execution.objects.filter(identity=OuterRef("identity"), state__in=LEASED).order_by().values("identity")
    count = Subquery(held.annotate(number=Count("pk")).values("number"), output_field=IntegerField())
    return Coalesce(count, Value(0))


def unclaimed(*, older_than: dt.timedelta, limit: int) -> list[tuple[int, int]]:
    """Return (id, epoch) of queued executions whose hint reached nobody, oldest first; those of bots at their limit are left out."""
    queued = Execution.objects.filter(state=ExecutionState.QUEUED, queued_at__lt=clock.db_now(-older_than))
    free = queued.annotate(busy=busy_with_identity()).filter(busy__lt=_limit_of_identity())
    return list(free.order_by("queued_at").values_list("pk", "epoch")[:limit])


def _limit_of_identity() -> Subquery:
    return Subquery(Identity.objects.filter(pk=OuterRef("identity")).values("concurrency"))


def still_owned(held: Collection[Execution]) -> dict[int, Execution]:
    """Return the current rows of those executions that their claimants still own, with only what a watcher needs."""
    rows: ExecutionQuerySet = Execution.objects.filter(pk__in=[row.pk for row in held], state__in=LEASED)
    mine = {(row.pk, row.epoch, row.owner_id) for row in held}
    current = rows.only("epoch", "owner", "stop_requested_at", "stop_reason")
    return {row.pk: row for row in current if (row.pk, row.epoch, row.owner_id) in mine}


def ordered_to_die(held: Collection[Execution]) -> dict[int, str]:
    """Return, for those of these executions that a stop order reaches, who ordered it and why. One query while nothing is stopped."""
    found: dict[int, str] = {}
    for order in governance_queries.active_orders():
        if order.mode == KillMode.STOP:
            named = set(governance_queries.open_lines(order).filter(kind="process").values_list("subject", flat=True))
            reached = (row for row in held if str(row.pk) in named or _in_scope(row, order))
            found |= {row.pk: order.sentence for row in reached}
    return found


def _in_scope(row: Execution, order: KillOrder) -> bool:
    scopes = {
        KillScope.FLEET: "",
        KillScope.IDENTITY: row.identity.slug,
        KillScope.CONVERSATION: str(row.conversation_id),
        KillScope.EXECUTION: str(row.pk),
    }
    return scopes[KillScope(order.scope)] == order.scope_id
