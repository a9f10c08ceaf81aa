"""The runner: which workers are alive, what they run, what waits for them, and which processes they hold ready."""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeVar

from django.db.models import Count, Exists, Model, OuterRef, Q, QuerySet, Sum

from execution import queries as execution_queries
from execution.models import Execution, HeldProcess, Worker
from execution.states import EXECUTION, LEASED, ExecutionState
from fleet.console.presenters import LiveRow, ProcessRow, RunnerPage, WorkerRow
from fleet.console.screens.bots import bot_name
from fleet.console.statuses import UNKNOWN, Status
from fleet.kernel import clock

PAGE = 25
SILENT = dt.timedelta(seconds=15)  # three beats
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_STATES = {
    ExecutionState.QUEUED: Status("waiting", "Queued"),
    ExecutionState.STARTING: Status("running", "Starting"),
    ExecutionState.RUNNING: Status("running", "Running"),
    ExecutionState.WAITING_APPROVAL: Status("human", "Waiting for a person"),
}
_LEFT = Status("waiting", "Waits for another worker")
Row = TypeVar("Row", bound=Model)


def runner_page(
    *, workers_after: int | None = None, executions_after: int | None = None, processes_after: int | None = None
) -> RunnerPage:
    """Return what the page shows. Lists are paged by key: workers and processes by a time in microseconds, executions by id."""
    workers, more_workers = _page(_workers(workers_after), "started_at")
    executions, more_executions = _page(_executions(executions_after), "pk")
    processes, more_processes = _page(_processes(processes_after), "idle_since")
    numbers = Execution.objects.filter(state__in=EXECUTION.live).aggregate(
        queued=Count("pk", filter=Q(state=ExecutionState.QUEUED)), running=Count("pk", filter=Q(state__in=LEASED))
    )
    return RunnerPage(
        workers=tuple(_worker(row) for row in workers),
        more_workers=more_workers,
        executions=tuple(_execution(row) for row in executions),
        more_executions=more_executions,
        processes=tuple(_process(row) for row in processes),
        more_processes=more_processes,
        running=numbers["running"],
        queued=numbers["queued"],
        megabytes=HeldProcess.objects.aggregate(total=Sum("megabytes"))["total"] or 0,
        counted_at=clock.now(),
    )


def _page(rows: QuerySet[Row], key: str) -> tuple[list[Row], int | None]:
    found = list(rows[: PAGE + 1])
    if len(found) <= PAGE:
        return found, None
    last: Any = getattr(found[PAGE - 1], key)
    return found[:PAGE], last if isinstance(last, int) else _microseconds(last)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def _moment(microseconds: int) -> dt.datetime:
    """Return the moment of a page's key; what no calendar has is the end of time."""
    try:
        return _EPOCH + dt.timedelta(microseconds=microseconds)
    except OverflowError:
        return dt.datetime.max.replace(tzinfo=dt.UTC)


def _workers(after: int | None) -> QuerySet[Worker]:
    rows = Worker.objects.filter(stopped_at=None).order_by("started_at", "pk")
    if after is not None:
        rows = rows.filter(started_at__gt=_moment(after))
    return rows.annotate(taken=Count("executions", filter=Q(executions__state__in=LEASED)))


def _executions(after: int | None) -> QuerySet[Execution]:
    rows = Execution.objects.filter(state__in=EXECUTION.live).order_by("pk")
    if after is not None:
        rows = rows.filter(pk__gt=after)
    rows = rows.annotate(waits_for=execution_queries.waits_for())
    return rows.select_related("identity", "owner", "turn__conversation").defer("prompt", "answer", "details")


def _processes(after: int | None) -> QuerySet[HeldProcess]:
    """Return them with the one that has been idle longest first."""
    rows = HeldProcess.objects.order_by("idle_since", "pk").select_related("identity", "worker")
    if after is not None:
        rows = rows.filter(idle_since__gt=_moment(after))
    works = Execution.objects.filter(session_id=OuterRef("session_id"), owner=OuterRef("worker"), state__in=LEASED)
    return rows.annotate(works=Exists(works))


def _worker(row: Any) -> WorkerRow:
    status, why = _worker_status(row)
    return WorkerRow(
        id=row.pk,
        host=row.host,
        pid=row.pid,
        version=row.version,
        status=status,
        why=why,
        taken=row.taken,
        slots=row.slots,
        beat_at=row.beat_at,
        started_at=row.started_at,
        draining=row.draining_at is not None,
    )


def _worker_status(row: Any) -> tuple[Status, str]:
    if row.beat_at < clock.now() - SILENT:
        return UNKNOWN, "Gives no sign of life; what it runs is given up when its lease ends"
    if row.draining_at is not None and row.taken:
        return Status("waiting", "Draining"), "Takes nothing new and finishes what it runs"
    if row.draining_at is not None:
        return Status("held", "Drained"), "Runs nothing and takes nothing: it can be stopped"
    if row.taken >= row.slots:
        return Status("running", "Full"), "Every slot is taken"
    return (Status("running", "Working"), "") if row.taken else (Status("ok", "Ready"), "")


def _execution(row: Any) -> LiveRow:
    turn = getattr(row, "turn", None)
    return LiveRow(
        id=row.pk,
        bot=bot_name(row.identity),
        conversation_id=row.conversation_id,
        title=turn.conversation.title if turn else "",
        provider=row.provider,
        model=row.model,
        status=_status(row),
        why=row.waits_for or "",
        since=row.released_at or row.claimed_at or row.queued_at,
        worker=_name(row.owner),
    )


def _status(row: Execution) -> Status:
    if row.lease_until is not None and row.lease_until < clock.now():
        return UNKNOWN
    if row.owner and row.owner.stopped_at:
        return _LEFT
    return _STATES.get(ExecutionState(row.state), UNKNOWN)


def _process(row: Any) -> ProcessRow:
    return ProcessRow(
        id=row.pk,
        bot=bot_name(row.identity),
        provider=row.provider,
        model=row.model,
        session=row.session_id[:8],
        status=_process_status(row),
        pid=row.pid,
        worker=_name(row.worker),
        turns=row.turns,
        megabytes=row.megabytes,
        weighed_at=row.weighed_at,
        began_at=row.began_at,
        idle_since=row.idle_since,
        ending=row.end_requested_at is not None,
    )


def _process_status(row: Any) -> Status:
    if row.worker.stopped_at is not None:
        return Status("unknown", "Not seen gone yet")
    if row.works:
        return Status("running", "Ends after its turn" if row.end_requested_at else "Answering")
    if row.end_requested_at is not None:
        return Status("waiting", "Ending")
    if row.turns:
        return Status("ok", "Warm")
    return Status("waiting", "Taken") if row.conversation_id is not None else Status("ok", "Started ahead")


def _name(worker: Worker | None) -> str:
    return f"{worker.host}:{worker.pid}" if worker else ""
