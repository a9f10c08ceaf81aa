"""Views of no one page: the way in, pages that are still to come, and how the console looks."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from fleet.console.context_processors import NEXT_THEME
from fleet.console.navigation import PLANNED
from fleet.console.statuses import PLANNED_STATUS
from fleet.console.views.answers import show

A_YEAR = 31_536_000


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Lead to the first page that has something to show."""
    return redirect("console:fleet")


@require_safe
def planned(request: HttpRequest, page: str) -> HttpResponse:
    """Say that a page is not built yet, and what it will show."""
    if page not in PLANNED:
        raise Http404
    return show(request, "planned.html", {"page": PLANNED[page], "planned": PLANNED_STATUS})


@require_POST
def preferences(request: HttpRequest) -> HttpResponse:
    """Keep the look in cookies of this browser and go back to where the person was."""
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}, require_https=request.is_secure()):
        back = "/"
    response = redirect(back)
    for name, allowed in {"theme": tuple(NEXT_THEME), "density": ("", "compact")}.items():
        value = request.POST.get(name)
        if value in allowed:
            response.set_cookie(f"fleet_{name}", value, max_age=A_YEAR if value else 0, samesite="Lax")
    return response
