"""The kill switch: give an order, write its receipt line by line, lift it."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from fleet.kernel.transitions import move
from governance import events, ports, queries
from governance.models import IN_FORCE, KillEpoch, KillOrder, StopLine
from governance.states import ORDER, KillMode, KillScope, OrderState

LONGEST_REASON = 400


@transaction.atomic
def stop(*, scope: KillScope, scope_id: str = "", mode: KillMode, reason: str, by: Actor) -> KillOrder:
    """Give a kill order: from its commit on nothing new starts within its scope. Needs no approval and no quiet database.

    Raises the kill epoch under a lock, freezes the list of what has to become quiet, and publishes `governance.kill.ordered`.
    An order that is in force already is returned as it is and told once more, for whoever missed it the first time.
    """
    scope, mode = KillScope(scope), KillMode(mode)
    _check_names_something(scope, scope_id)
    epoch = _raise_epoch()
    order = KillOrder.objects.filter(IN_FORCE, scope=scope, scope_id=scope_id, mode=mode).first()
    if order is not None:
        _tell(events.KILL_REPEATED, order, by)
        return order
    order = KillOrder.objects.create(
        scope=scope, scope_id=scope_id, mode=mode, reason=_sentence_of(reason), epoch=epoch, ordered_by=by.name
    )
    order.refresh_from_db(fields=["ordered_at"])
    alive = ports.alive_within(scope, scope_id)
    StopLine.objects.bulk_create(StopLine(order=order, kind=kind, subject=subject) for kind, subject in alive)
    _tell(events.KILL_ORDERED, order, by)
    _settle(order, by)
    return order


def _check_names_something(scope: KillScope, scope_id: str) -> None:
    if (scope == KillScope.FLEET) == bool(scope_id):
        raise Invalid(
            "This order does not say what it stops.",
            why="An order over the fleet names nothing more; every other names its bot, conversation or execution.",
            next_step="Name it and try again.",
        )


def _raise_epoch() -> int:
    """Raise the kill epoch and return it. The row's lock lets orders pass one after the other until they commit."""
    KillEpoch.objects.get_or_create(pk=1)
    KillEpoch.objects.filter(pk=1).update(value=F("value") + 1)
    return KillEpoch.objects.get(pk=1).value


def _tell(event: str, order: KillOrder, by: Actor) -> None:
    facts = {"scope": str(order.scope), "scope_id": order.scope_id, "mode": str(order.mode), "epoch": order.epoch}
    journal.record(event, by=by, subject=("kill_order", order.pk), reason=order.reason, **facts)
    live.hint("kill", order=order.pk, state=str(order.state), **facts)
    live.hint("fleet", order=order.pk)


@transaction.atomic
def record_quiet(*, order: KillOrder, kind: str, subject: str, by: Actor, killed: bool, sentence: str = "") -> StopLine:
    """Close one line of an order's receipt: this is quiet now, by the database's clock. Closing it again changes nothing.

    What the order did not know of gets a line of its own, marked as not expected. The last line makes the order quiet.
    """
    order = KillOrder.objects.select_for_update(no_key=True).get(pk=order.pk)
    line, _ = StopLine.objects.get_or_create(order=order, kind=kind, subject=subject, defaults={"expected": False})
    if line.quiet_at is not None:
        return line
    StopLine.objects.filter(pk=line.pk).update(
        quiet_at=clock.db_now(), killed=killed, sentence=sentence[:400], closed_by=by.name
    )
    line.refresh_from_db()
    journal.record(
        events.KILL_LINE_QUIET,
        by=by,
        subject=("kill_order", order.pk),
        kind=kind,
        what=subject,
        killed=killed,
        sentence=line.sentence,
    )
    live.hint("kill", order=order.pk, line=line.pk)
    _settle(order, by)
    return line


def _settle(order: KillOrder, by: Actor) -> None:
    """Make a stopping order quiet once every line is closed. The order's row is locked, or nobody else can see it yet."""
    if order.state != OrderState.STOPPING or queries.open_lines(order).exists():
        return
    move(order, ORDER, OrderState.QUIET, by=by, event=events.KILL_QUIET, quiet_at=clock.db_now())
    order.refresh_from_db(fields=["quiet_at"])
    live.hint("kill", order=order.pk, state=str(order.state))
    live.hint("fleet", order=order.pk)


@transaction.atomic
def lift(*, order: KillOrder, reason: str, by: Actor) -> KillOrder:
    """End an order, with a reason. What it stopped stays stopped: nothing resumes by itself. StateConflict when lifted before."""
    lifted = move(
        KillOrder.objects.select_for_update(no_key=True).get(pk=order.pk),
        ORDER,
        OrderState.LIFTED,
        by=by,
        event=events.KILL_LIFTED,
        details={"reason": reason.strip()[:LONGEST_REASON]},
        lifted_at=clock.db_now(),
        lifted_by=by.name,
        lift_reason=_sentence_of(reason),
    )
    lifted.refresh_from_db(fields=["lifted_at"])
    live.hint("kill", order=lifted.pk, state=str(lifted.state))
    live.hint("fleet", order=lifted.pk)
    return lifted


def _sentence_of(reason: str) -> str:
    text = " ".join(reason.split())[:LONGEST_REASON]
    if not text:
        raise Invalid(
            "This needs a reason.", why="The people it stops will read it.", next_step="Say why in a few words."
        )
    return text
