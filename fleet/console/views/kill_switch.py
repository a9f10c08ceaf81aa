"""The kill switch: see, stop, resume, and the receipts."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from fleet.console.forms import WHOLE_FLEET, ResumeForm, StopForm
from fleet.console.presenters import KillView, OrderView
from fleet.console.screens import kill
from fleet.console.views.answers import actor_of, number, pager, person_of, show
from fleet.kernel.exceptions import FleetError, NotFound
from governance import actions, queries
from governance.states import KillMode, KillScope
from identities.permissions import Permission

LONGEST_SLUG = 60
_UNUSABLE = 422


@require_safe
def kill_switch(request: HttpRequest) -> HttpResponse:
    """What runs, what is held, and the form that stops it."""
    named = request.GET.get("bot", "")[:LONGEST_SLUG]
    return _page(request, StopForm(bots=kill.bots_to_stop(named), initial={"scope": named or WHOLE_FLEET}))


@require_safe
def kill_badge(request: HttpRequest) -> HttpResponse:
    """One word for the strip of every page."""
    return show(request, "kill_switch/_badge.html", {})


@require_safe
def stop_receipt(request: HttpRequest, order_id: int) -> HttpResponse:
    """The proof of one stop."""
    receipt, more = kill.stop_receipt(order_id, after=number(request, "after") or 0)
    context = {"receipt": receipt, "pager": pager(request, after=more)}
    return show(request, "kill_switch/receipt.html", context, part="body")


@require_POST
def stop(request: HttpRequest) -> HttpResponse:
    """Give a kill order and lead to its receipt, where the proof comes in."""
    form = StopForm(request.POST, bots=kill.bots_to_stop(request.POST.get("scope", "")[:LONGEST_SLUG]))
    if form.is_valid():
        target = form.cleaned_data["scope"]
        whole = target == WHOLE_FLEET
        try:
            order = actions.stop(
                scope=KillScope.FLEET if whole else KillScope.IDENTITY,
                scope_id="" if whole else target,
                mode=KillMode(form.cleaned_data["mode"]),
                reason=form.cleaned_data["reason"],
                by=actor_of(request),
            )
        except FleetError as error:
            form.add_error(None, error.sentence)
        else:
            return redirect("console:stop_receipt", order.pk)
    return _page(request, form, status=_UNUSABLE)


@require_POST
def resume(request: HttpRequest, order_id: int) -> HttpResponse:
    """Lift a kill order."""
    order = queries.get_order(order_id)
    if order is None:
        raise NotFound("There is no such kill order.", next_step="Choose one from the kill switch page.")
    form = ResumeForm(request.POST, prefix=f"order-{order_id}")
    if form.is_valid():
        try:
            actions.lift(order=order, reason=form.cleaned_data["reason"], by=actor_of(request))
        except FleetError as error:
            form.add_error(None, error.sentence)
        else:
            return redirect("console:kill_switch")
    return _page(request, StopForm(bots=kill.bots_to_stop()), resume=(order_id, form), status=_UNUSABLE)


def _page(
    request: HttpRequest, form: StopForm, *, resume: tuple[int, ResumeForm] | None = None, status: int = 200
) -> HttpResponse:
    view = kill.kill_view(before=number(request, "before"), held_before=number(request, "held"))
    page = reverse("console:kill_switch")
    permissions = person_of(request).permissions
    context = {
        "view": view,
        "stop_form": form,
        "may_stop": Permission.FLEET_STOP in permissions,
        "resumes": list(_resumes(view, resume)) if Permission.FLEET_RESUME in permissions else [],
        "pager": pager(request, before=view.older),
        "held_pager": pager(request, held=view.more_in_force),
        "live_address": request.get_full_path() if request.path == page else page,
    }
    return show(request, "kill_switch/switch.html", context, part="now", status=status)


def _resumes(view: KillView, bound: tuple[int, ResumeForm] | None) -> Iterator[tuple[OrderView, str, ResumeForm]]:
    for order in view.in_force:
        form = bound[1] if bound and bound[0] == order.id else ResumeForm(prefix=f"order-{order.id}")
        yield order, kill.resumes_at_once(order), form
