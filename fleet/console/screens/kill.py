"""The kill switch: what runs, which orders are in force, and the receipts that prove earlier ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import replace

from django.db.models import Count

from conversations import queries as conversation_queries
from conversations.models import Turn
from execution.models import Execution
from execution.policies import within
from execution.states import EXECUTION, ExecutionState
from fleet.console.presenters import KillBadge, KillView, OrderView, ReceiptLine, StopReceipt
from fleet.console.statuses import order_status
from fleet.kernel import clock
from fleet.kernel.exceptions import NotFound
from gateways import queries as gateway_queries
from governance import queries
from governance.models import KillOrder, StopLine
from governance.states import KillMode, KillScope, OrderState
from identities.models import Identity
from identities.states import IdentityState

RECEIPTS = 10
ORDERS = 5
LINES = 100
BOTS_OFFERED = 200
MANY_HELD = 99


def kill_badge(orders: Sequence[KillOrder]) -> KillBadge:
    """Return one word for the strip: the hardest order over the whole fleet, else how many orders hold a part of it."""
    over_all = [order for order in orders if order.scope == KillScope.FLEET]
    if any(order.state == OrderState.STOPPING for order in over_all):
        return KillBadge("waiting", "Stopping")
    if any(order.mode == KillMode.STOP for order in over_all):
        return KillBadge("held", "Stopped")
    if over_all:
        return KillBadge("held", "Drained")
    if orders:
        return KillBadge("held", f"{len(orders)} held" if len(orders) <= MANY_HELD else f"{MANY_HELD}+ held")
    return KillBadge("ok", "Running")


def kill_view(*, before: int | None = None, held_before: int | None = None) -> KillView:
    """Return what the page of the kill switch shows; every number is counted now. Orders in force and receipts are paged by id.

    What holds the whole fleet stands at the top of every page.
    """
    over_all = queries.fleet_orders()
    narrow = [row for row in queries.orders_in_force(before=held_before, limit=ORDERS + 3) if row not in over_all]
    in_force = [*over_all, *narrow[:ORDERS]]
    receipts = list(queries.orders(before=before, limit=RECEIPTS + 1))
    alive = _alive([order.pk for order in (*in_force, *receipts[:RECEIPTS])])
    names = _names([*in_force, *receipts])
    queued, held = _waiting(in_force)
    return KillView(
        running=Execution.objects.filter(state__in=EXECUTION.live).exclude(state=ExecutionState.QUEUED).count(),
        queued=queued,
        channels=len(gateway_queries.keys_in_scope(scope=KillScope.FLEET, scope_id="")),
        counted_at=clock.now(),
        in_force=tuple(
            replace(order_view(order, alive, names), holds=number) for order, number in zip(in_force, held, strict=True)
        ),
        more_in_force=narrow[ORDERS - 1].pk if len(narrow) > ORDERS else None,
        receipts=tuple(order_view(order, alive, names) for order in receipts[:RECEIPTS]),
        older=receipts[RECEIPTS - 1].pk if len(receipts) > RECEIPTS else None,
    )


def _waiting(orders: Sequence[KillOrder]) -> tuple[int, list[int]]:
    """Return how many turns and executions wait for their start, and how many of them each order holds. Two queries."""
    turns, held = conversation_queries.held_depths([(order.scope, order.scope_id) for order in orders])
    counts = {f"of_{order.pk}": Count("pk", filter=within(order.scope, order.scope_id)) for order in orders}
    queued = Execution.objects.filter(state=ExecutionState.QUEUED).aggregate(waiting=Count("pk"), **counts)
    return turns + queued["waiting"], [number + queued[name] for number, name in zip(held, counts, strict=True)]


def order_view(order: KillOrder, alive: dict[int, int], names: dict[str, str]) -> OrderView:
    """Return one order as it reads; `alive` counts open lines by order, `names` maps slugs to bots' names."""
    return OrderView(
        id=order.pk,
        scope=order.scope,
        target=names.get(order.scope_id, f"{order.get_scope_display()} {order.scope_id}"),
        mode=order.mode,
        status=order_status(order.state),
        reason=order.reason,
        by=order.ordered_by,
        ordered_at=order.ordered_at,
        quiet_at=order.quiet_at,
        lifted_at=order.lifted_at,
        lifted_by=order.lifted_by,
        seconds_to_quiet=_seconds(order.ordered_at, order.quiet_at),
        alive=alive.get(order.pk, 0),
    )


def stop_receipt(order_id: int, *, after: int = 0) -> tuple[StopReceipt, int | None]:
    """Return an order's receipt: what is still alive, as much as a page holds, and one page of what became quiet; the id to go on from."""
    order = queries.get_order(order_id)
    if order is None:
        raise NotFound("There is no such stop receipt.", next_step="Choose one from the kill switch page.")
    open_lines = list(queries.open_lines(order)[:LINES])
    closed = StopLine.objects.filter(order=order, quiet_at__isnull=False, pk__gt=after).order_by("pk")
    quiet = list(closed[: LINES + 1])
    processes = _executions([*open_lines, *quiet])
    turns = _turns([*open_lines, *quiet])
    lines = [_line(line, order, processes, turns) for line in (*open_lines, *quiet[:LINES])]
    view = order_view(order, _alive([order.pk]), _names([order]))
    more = quiet[LINES - 1].pk if len(quiet) > LINES else None
    return StopReceipt(view, tuple(lines[: len(open_lines)]), tuple(lines[len(open_lines) :])), more


def _alive(order_ids: Sequence[int]) -> dict[int, int]:
    rows = StopLine.objects.filter(order__in=order_ids, quiet_at=None).order_by()
    return dict(rows.values_list("order_id").annotate(number=Count("pk")))


def _names(orders: Iterable[KillOrder]) -> dict[str, str]:
    slugs = {order.scope_id for order in orders if order.scope == KillScope.IDENTITY}
    return dict(Identity.objects.filter(slug__in=slugs).values_list("slug", "name")) if slugs else {}


def _executions(lines: Iterable[StopLine]) -> dict[str, Execution]:
    ids = [line.subject for line in lines if line.kind == "process" and line.subject.isdecimal()]
    rows = Execution.objects.filter(pk__in=ids).select_related("identity").only("host", "pid", "identity__name")
    return {str(row.pk): row for row in rows}


def _turns(lines: Iterable[StopLine]) -> dict[str, Turn]:
    ids = [line.subject for line in lines if line.kind == "queue" and line.subject.isdecimal()]
    rows = Turn.objects.filter(pk__in=ids).select_related("identity").only("state", "identity__name")
    return {str(row.pk): row for row in rows}


def _line(line: StopLine, order: KillOrder, processes: dict[str, Execution], turns: dict[str, Turn]) -> ReceiptLine:
    name, detail = line.subject, ""
    if line.kind == "process":
        name, detail = _process_name(line.subject), _whereabouts(processes.get(line.subject))
    elif line.kind == "queue":
        turn = turns.get(line.subject)
        name, detail = f"Waiting turn {line.subject}", turn.identity.name if turn else ""
    return ReceiptLine(
        kind=line.kind,
        name=name,
        detail=detail if line.expected else f"{detail} · came up after the order".removeprefix(" · "),
        seconds=_seconds(order.ordered_at, line.quiet_at),
        ending=line.sentence or _ending(line),
    )


def _process_name(subject: str) -> str:
    """Return what a line about a process is called: the execution it worked on, or that it had nothing to do."""
    kind, _, pid = subject.rpartition(":")
    return f"Idle process {pid}" if kind else f"Execution {subject}"


def _whereabouts(row: Execution | None) -> str:
    if row is None:
        return ""
    parts = [
        row.identity.name,
        f"host {row.host}" if row.host else "",
        f"process {row.pid}" if row.pid else "no process",
    ]
    return " · ".join(part for part in parts if part)


def _ending(line: StopLine) -> str:
    if line.quiet_at is None:
        return "not seen quiet yet"
    return "stopped by the order" if line.killed else "ended by itself"


def _seconds(start: dt.datetime, end: dt.datetime | None) -> float | None:
    return (end - start).total_seconds() if end else None


def bots_to_stop(named: str = "") -> list[tuple[str, str]]:
    """Return slug and name of bots that can be stopped alone: the first by name, and the one that is `named` by its slug."""
    rows = Identity.objects.exclude(state=IdentityState.RETIRED).order_by("name", "pk")
    offered = list(rows.values_list("slug", "name")[:BOTS_OFFERED])
    if named and named not in dict(offered):
        offered += rows.filter(slug=named).values_list("slug", "name")
    return offered


def resumes_at_once(order: OrderView) -> str:
    """Return what lifting an order starts, in a sentence."""
    if not order.holds:
        return "Nothing waits: lifting it starts nothing by itself."
    verb = "waits and starts" if order.holds == 1 else "wait and start"
    return f"{order.holds} {'turn' if order.holds == 1 else 'turns'} {verb} as soon as no order holds them."
