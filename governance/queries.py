"""Reads of kill orders, receipts and decisions; no side effects."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.db import connection
from django.db.models import Case, Count, Max, Q, QuerySet, When

from fleet.kernel import clock
from governance.models import IN_FORCE, GateDecision, KillEpoch, KillOrder, PolicyVersion, StopLine
from governance.states import KillScope

STILL_ALIVE_AFTER = dt.timedelta(seconds=10)
PAGE = 50
LINES = 100


def kill_epoch() -> int:
    """Return the number of orders given so far; work remembers the one it was admitted under."""
    return KillEpoch.objects.values_list("value", flat=True).first() or 0


def active_orders() -> list[KillOrder]:
    """Return every order in force, the oldest first."""
    return list(KillOrder.objects.filter(IN_FORCE).order_by("epoch"))


def orders_in_force(*, before: int | None = None, limit: int = PAGE) -> QuerySet[KillOrder]:
    """Return orders in force, the newest first, before the id `before`."""
    rows = KillOrder.objects.filter(IN_FORCE).order_by("-pk")
    return (rows if before is None else rows.filter(pk__lt=before))[:limit]


def fleet_orders() -> list[KillOrder]:
    """Return the orders in force over the whole fleet; the database allows one of each mode."""
    return list(KillOrder.objects.filter(IN_FORCE, scope=KillScope.FLEET).order_by("-pk"))


def widest_orders(limit: int) -> list[KillOrder]:
    """Return up to `limit` orders in force, those over the whole fleet first: enough to say how things stand."""
    narrow = Case(When(scope=KillScope.FLEET, then=0), default=1)
    return list(KillOrder.objects.filter(IN_FORCE).order_by(narrow, "pk")[:limit])


def orders(*, before: int | None = None, limit: int = PAGE) -> QuerySet[KillOrder]:
    """Return orders of all times, the newest first, before the id `before`."""
    rows = KillOrder.objects.order_by("-pk")
    return (rows if before is None else rows.filter(pk__lt=before))[:limit]


def get_order(order_id: int) -> KillOrder | None:
    """Return the order, or None."""
    return KillOrder.objects.filter(pk=order_id).first()


def open_lines(order: KillOrder) -> QuerySet[StopLine]:
    """Return the lines of an order's receipt that nobody has seen quiet yet."""
    return StopLine.objects.filter(order=order, quiet_at=None).order_by("pk")


# By hand, because every admission, claim, tool call and look into the outbox asks it: the ORM took ten times as long to write it as
# PostgreSQL to answer.
_IN_FORCE = "killed.state IN ('stopping', 'quiet')"
_REACHES_BOT = "killed.scope = 'fleet' OR killed.scope = 'identity' AND killed.scope_id = {slug}"
_REACHING = f"""
    SELECT epoch.value, (
        SELECT killed.id FROM governance_killorder AS killed
        WHERE ({_IN_FORCE} OR killed.epoch > %(since_epoch)s)
          AND (killed.mode = 'stop' OR NOT %(hard_only)s)
          AND ({_REACHES_BOT.format(slug="%(identity_slug)s")}
            OR killed.scope = 'conversation' AND killed.scope_id = %(conversation_id)s
            OR killed.scope = 'execution' AND killed.scope_id = %(execution_id)s)
        ORDER BY killed.epoch LIMIT 1)
    FROM governance_killepoch AS epoch
"""  # noqa: S608 - put together from constants
# Whether an order in force stops the bot with the slug altogether, for a statement that asks other things as well.
STOPS_BOT = f"EXISTS (SELECT FROM governance_killorder AS killed WHERE {_IN_FORCE} AND ({_REACHES_BOT}))"


def order_reaching(
    *,
    identity_slug: str,
    conversation_id: int | None,
    execution_id: int | None,
    since_epoch: int | None = None,
    hard_only: bool = False,
) -> tuple[int, KillOrder | None]:
    """Return the kill epoch and the oldest order in force that reaches this work.

    One statement, so that both are of the same moment; a second one only when there is an order to name. With `since_epoch`
    an order given after that epoch counts even when it was lifted since: what was admitted before a stop does not begin by
    itself after it. `hard_only` leaves out orders that only drain.
    """
    facts = {
        "identity_slug": identity_slug,
        "conversation_id": None if conversation_id is None else str(conversation_id),
        "execution_id": None if execution_id is None else str(execution_id),
        "since_epoch": since_epoch,
        "hard_only": hard_only,
    }
    with connection.cursor() as cursor:
        cursor.execute(_REACHING, facts)
        epoch, order_id = cursor.fetchone() or (0, None)
    return epoch, KillOrder.objects.get(pk=order_id) if order_id else None


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One line: what it was, how it ended, and after how many milliseconds; `milliseconds` is None while it is alive."""

    kind: str
    subject: str
    sentence: str
    expected: bool
    killed: bool | None
    milliseconds: int | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof of a stop. `milliseconds` is the time until the last line was quiet; None while one is open.

    `lines` are one page; `still_alive` counts over all of them, and `after` is the id from which the quiet ones go on.
    """

    order: KillOrder
    lines: tuple[ReceiptLine, ...]
    milliseconds: int | None
    overdue: bool
    still_alive: int
    after: int | None

    @property
    def alive(self) -> tuple[ReceiptLine, ...]:
        """Return the lines nobody has seen quiet; once `overdue`, they are shown as still alive."""
        return tuple(line for line in self.lines if line.milliseconds is None)


def receipt(order: KillOrder, *, after: int = 0, limit: int = LINES) -> Receipt:
    """Return an order's receipt: at most `limit` lines of what is alive, then as many of what became quiet, after the id `after`."""
    rows = StopLine.objects.filter(order=order)
    found = rows.aggregate(alive=Count("pk", filter=Q(quiet_at=None)), last=Max("quiet_at"))
    quiet = list(rows.filter(quiet_at__isnull=False, pk__gt=after).order_by("pk")[: limit + 1])
    alive = list(open_lines(order)[:limit]) if found["alive"] and not after else []
    still_alive: int = found["alive"]
    return Receipt(
        order=order,
        lines=tuple(_line(order, line) for line in (*alive, *quiet[:limit])),
        milliseconds=None if still_alive else _milliseconds(order, found["last"]) or 0,
        overdue=bool(still_alive) and order.in_force and clock.now() - order.ordered_at > STILL_ALIVE_AFTER,
        still_alive=still_alive,
        after=quiet[limit - 1].pk if len(quiet) > limit else None,
    )


def _line(order: KillOrder, line: StopLine) -> ReceiptLine:
    took = _milliseconds(order, line.quiet_at)
    return ReceiptLine(line.kind, line.subject, line.sentence, line.expected, line.killed, took)


def _milliseconds(order: KillOrder, quiet_at: dt.datetime | None) -> int | None:
    return round((quiet_at - order.ordered_at).total_seconds() * 1000) if quiet_at else None


def active_policy() -> PolicyVersion | None:
    """Return the policy that Gate 1 asks, or None before the first one."""
    return PolicyVersion.objects.filter(active=True).first()


def decisions(
    *, origin: tuple[str, object] | None = None, identity_slug: str = "", before: int | None = None, limit: int = PAGE
) -> QuerySet[GateDecision]:
    """Return gate decisions, the newest first, of one origin (kind, id) or one bot, before the id `before`."""
    rows = GateDecision.objects.order_by("-pk")
    if origin is not None:
        rows = rows.filter(origin_kind=origin[0], origin_id=str(origin[1]))
    if identity_slug:
        rows = rows.filter(identity_slug=identity_slug)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return rows[:limit]
