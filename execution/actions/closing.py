"""The end of an execution: one transaction for the row, the reservation, the kill receipt and everybody who waits for it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Case, Min, OuterRef, Subquery, Value, When

from budgets import actions as budget_actions
from execution import events, queries
from execution.actions.breaking import learn
from execution.actions.offering import decide_offers
from execution.actions.recording import Line, append_events, next_sequence
from execution.models import Execution, ExecutionEvent, ExecutionQuerySet, OrphanResult
from execution.outcomes import believable
from execution.ports import ProcessFacts
from execution.states import EXECUTION, EventKind, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Fenced
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.models import KillOrder, StopLine


@dataclass(frozen=True, slots=True)
class Ending:
    """How an execution ended. `fields` are further columns, such as token counts; `gone` says that its processes were seen to be gone.

    `unmetered` says that it spent and nobody knows how much: then what is held stays held, as after a lost run.
    """

    state: ExecutionState
    outcome: OutcomeClass
    sentence: str = ""
    answer: str = ""
    retry_at: dt.datetime | None = None
    cause: str = ""
    gone: bool = False
    unmetered: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)


_MONEY = {
    SpendStage.SETTLED: budget_actions.settle,
    SpendStage.NONE: budget_actions.release,
    SpendStage.UNKNOWN: budget_actions.hold_uncertain,
}


_GONE = "Process {row.pid} on {row.host} and all its descendants are gone."


@transaction.atomic
def finish(
    *, execution: Execution, ending: Ending, by: Actor, lines: Sequence[Line] = (), first_sequence: int = 0
) -> Execution:
    """Close the execution a worker owns, with the events it had not written yet (from `first_sequence` on).

    May be repeated after a commit whose reply was lost. Raises Fenced when the execution is no longer this worker's.
    """
    closed = close(Execution.objects.owned(execution), ending=ending, lines=lines, first_sequence=first_sequence, by=by)
    if closed:
        return closed
    row = Execution.objects.as_claimed(execution).filter(state__in=EXECUTION.final).first()
    if row is None:
        raise Fenced(f"Execution {execution.pk} belongs to another worker now.")
    return row


@transaction.atomic
def note_gone(*, execution: Execution, by: Actor) -> None:
    """Note that the processes of an execution that has ended were seen to be gone, also in the receipts that wait for it."""
    rows = Execution.objects.as_claimed(execution).filter(process_gone_at=None)
    for row in rows.update_returning(process_gone_at=clock.db_now()):
        for order in _waiting_orders(row):
            _write_quiet(order, row, by, killed=False, sentence=f"{_GONE.format(row=row)} It had answered.")


def note_process_gone(process: ProcessFacts, *, by: Actor) -> None:
    """Note for every execution that this process answered, one after the other, that it was seen to be gone."""
    answered = Execution.objects.filter(
        boot_id=process.boot_id, pid=process.pid, pid_started_at=process.started_at, process_gone_at=None
    ).filter(state__in=EXECUTION.final)
    named = queries.waited_for(also_lifted=True)
    for row in answered.filter(pk__in=named) if named else ():
        note_gone(execution=row, by=by)
    answered.update(process_gone_at=clock.db_now())


def close(
    rows: ExecutionQuerySet, *, ending: Ending, by: Actor, lines: Sequence[Line] = (), first_sequence: int = 0
) -> Execution | None:
    """Close the one execution that `rows` still matches, in the caller's transaction; None when it matches no more."""
    closed = rows.update_returning(
        state=ending.state,
        outcome=ending.outcome,
        sentence=ending.sentence,
        answer=ending.answer,
        retry_at=believable(ending.retry_at, ending.cause, now=clock.now()),
        cause=ending.cause,
        ended_at=clock.db_now(),
        lease_until=None,
        process_gone_at=clock.db_now() if ending.gone else None,
        spend_stage=_final_stage(ending),
        **_first_events(ending),
        **ending.fields,
    )
    if not closed:
        return None
    (row,) = closed
    learn(row, by=by)  # before anybody asks what follows
    if row.offered:
        decide_offers(row, gone=ending.gone, by=by)
    _tell(row, lines, first_sequence or next_sequence(row), by)
    if row.reservation_id is not None:  # late: all runs of the fleet meet at the fleet's budget window
        _MONEY[SpendStage(row.spend_stage)](reservation_id=row.reservation_id, by=by)
    _close_kill_receipt(row, ending, by)
    return row


def _final_stage(ending: Ending) -> Case | Value:
    """Nothing is owed for what was never released; what was lost after its release, or not counted, is unknown, never guessed."""
    unknown = ending.unmetered or ending.state == ExecutionState.LOST
    after_release = SpendStage.UNKNOWN if unknown else SpendStage.SETTLED
    return Case(When(spend_stage=SpendStage.RELEASED, then=Value(after_release)), default=Value(SpendStage.NONE))


def _first_events(ending: Ending) -> dict[str, Any]:
    """Return the moments of the first event and the first text, unless the worker noted them itself."""
    if "first_event_at" in ending.fields:
        return {}
    return {"first_event_at": _first_event(), "first_text_at": _first_event(kind=EventKind.TEXT)}


def _first_event(**filters: Any) -> Subquery:
    lines = ExecutionEvent.objects.filter(execution=OuterRef("pk"), **filters).values("execution")
    return Subquery(lines.annotate(first=Min("at")).values("first"))


def _tell(row: Execution, lines: Sequence[Line], first_sequence: int, by: Actor) -> None:
    last = (EventKind.ENDED, {"state": row.state, "outcome": row.outcome, "sentence": row.sentence})
    append_events(execution=row, first_sequence=first_sequence, lines=[*lines, last])
    journal.record(
        events.FINISHED,
        by=by,
        subject=("execution", row.pk),
        row=row,
        state=row.state,
        outcome=row.outcome,
        sentence=row.sentence,
        answer_length=len(row.answer),
        origin_kind=row.origin_kind,
        origin_id=row.origin_id,
    )
    live.hint(f"execution:{row.pk}", sequence=first_sequence + len(lines), state=row.state)


def _close_kill_receipt(row: Execution, ending: Ending, by: Actor) -> None:
    """Write the line of every kill order that waits for this execution to be quiet, and of the one that ended it.

    A process that was not seen to be gone keeps its line open: `note_gone` or the sweep closes it once there is proof.
    """
    if row.pid is not None and not ending.gone:
        return
    orders = _waiting_orders(row)
    if ending.outcome == OutcomeClass.GOVERNANCE and not orders:
        _, order = governance_queries.order_reaching(
            identity_slug=row.identity.slug,
            conversation_id=row.conversation_id,
            execution_id=row.pk,
            since_epoch=row.kill_epoch,
        )
        orders = [order] if order else []
    killed = ending.outcome == OutcomeClass.GOVERNANCE and row.pid is not None
    for order in orders:
        _write_quiet(order, row, by, killed=killed, sentence=_proof(row))


def _waiting_orders(row: Execution) -> list[KillOrder]:
    """Return the orders whose receipt waits for this execution, always in the same sequence, since each gets locked."""
    waiting = StopLine.objects.filter(kind="process", subject=str(row.pk), quiet_at=None).order_by("order_id")
    return [line.order for line in waiting.select_related("order")]


def _write_quiet(order: KillOrder, row: Execution, by: Actor, *, killed: bool, sentence: str) -> None:
    governance_actions.record_quiet(
        order=order, kind="process", subject=str(row.pk), by=by, killed=killed, sentence=sentence
    )


def _proof(row: Execution) -> str:
    """Return what was seen of the execution's end, for a receipt."""
    if row.pid is not None:
        return _GONE.format(row=row)
    if row.released_at is None:
        return "No process: it had not begun."
    return "No process: its provider runs inside the worker."


@transaction.atomic
def keep_orphan(*, execution: Execution, ending: Ending, by: Actor) -> OrphanResult:
    """Keep what a fenced worker still had. It was paid for, so it is kept; it never overwrites what the new owner wrote.

    Of the ending its outcome, sentence and answer are kept, and the tokens in its fields.
    """
    orphan = OrphanResult.objects.create(
        execution_id=execution.pk,
        epoch=execution.epoch,
        worker_id=execution.owner_id,  # type: ignore[misc]  # it was claimed, so it had an owner
        outcome=ending.outcome,
        answer=ending.answer,
        details={"sentence": ending.sentence, "tokens": dict(ending.fields)},
    )
    journal.record(events.ORPHANED, by=by, subject=("execution", execution.pk), orphan=orphan.pk, epoch=execution.epoch)
    return orphan
