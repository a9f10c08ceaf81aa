"""The logins of the providers: see which are left alone, and have one tried again."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from execution import actions
from fleet.console.screens import logins
from fleet.console.views.answers import actor_of, person_of, show
from identities.permissions import Permission


@require_safe
def login_list(request: HttpRequest) -> HttpResponse:
    """Every login with the state it is in now."""
    now, earlier = logins.login_rows()
    context = {
        "rows": now,
        "earlier": earlier,
        "parked": logins.parked_count(),
        "checks": logins.check_rows(),
        "may_reset": Permission.LOGIN_RESET in person_of(request).permissions,
    }
    return show(request, "logins/list.html", context, part="rows")


@require_POST
def reset_login(request: HttpRequest, breaker_id: int) -> HttpResponse:
    """Have a login that is left alone tried again now."""
    actions.reset_breaker(breaker_id=breaker_id, by=actor_of(request))
    messages.success(request, "The login is used again. Should it fail once more, it is left alone again.")
    return redirect("console:logins")
