"""The runner: its workers, and what may be done to them."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from execution import actions
from fleet.console.screens.logins import parked_count
from fleet.console.screens.runner import runner_page
from fleet.console.views.answers import actor_of, number, pager, person_of, show
from fleet.kernel.exceptions import FleetError
from identities.permissions import Permission


@require_safe
def runner(request: HttpRequest) -> HttpResponse:
    """Workers, executions that have not ended, and processes that stand by."""
    page = runner_page(
        workers_after=number(request, "workers"),
        executions_after=number(request, "executions"),
        processes_after=number(request, "processes"),
    )
    context = {
        "page": page,
        "parked": parked_count(),
        "may_steer": Permission.WORKER_STEER in person_of(request).permissions,
        "worker_pager": pager(request, workers=page.more_workers),
        "execution_pager": pager(request, executions=page.more_executions),
        "process_pager": pager(request, processes=page.more_processes),
    }
    return show(request, "runner/runner.html", context, part="now")


@require_POST
def drain_worker(request: HttpRequest, worker_id: uuid.UUID) -> HttpResponse:
    """Let a worker take nothing new (`drain` is 1), or take work again (0)."""
    wanted = request.POST.get("drain")
    if wanted not in ("0", "1"):
        messages.error(
            request,
            "Nothing was changed: say with drain=1 or drain=0 whether the worker takes nothing new or works again.",
        )
        return redirect("console:runner")
    draining = wanted == "1"
    try:
        worker = actions.set_draining(worker_id=worker_id, draining=draining, by=actor_of(request))
    except FleetError as error:
        messages.error(request, error.sentence)
    else:
        what = "takes nothing new and ends what stands by" if draining else "takes work again"
        messages.success(request, f"Worker {worker.host}:{worker.pid} {what}.")
    return redirect("console:runner")


@require_POST
def end_process(request: HttpRequest, process_id: uuid.UUID) -> HttpResponse:
    """End a process that stands by; nothing is lost but the time its next turn takes to start one."""
    try:
        process = actions.request_process_end(held_id=process_id, by=actor_of(request))
    except FleetError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(request, f"The process of {process.identity.name} is being ended.")
    return redirect("console:runner")
