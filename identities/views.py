"""Signing in by a one-time link."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from fleet.kernel.exceptions import Refused
from identities import actions, queries

TEMPLATE = "identities/sign_in_link.html"


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def use_link(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows whom the link signs in and a button, so that a chat's preview does not use it up; POST signs in.

    The template gets `link` (None when it does not open) and `refusal` (what, why, next_step) after a refused POST.
    """
    if request.method != "POST":
        link = queries.find_sign_in_link(token)
        return _page(request, {"link": link}, status=200 if link else 404)
    try:
        person = actions.use_sign_in_link(token=token)
    except Refused as refusal:
        return _page(request, {"link": None, "refusal": refusal}, status=refusal.status)
    login(request, person, backend=settings.AUTHENTICATION_BACKENDS[0])
    return redirect(settings.LOGIN_REDIRECT_URL)


def _page(request: HttpRequest, context: dict[str, object], *, status: int) -> HttpResponse:
    response = render(request, TEMPLATE, context, status=status)
    # The address is a key, so no other page learns it. Not "no-referrer": browsers then send the form with "Origin: null".
    response["Referrer-Policy"] = "strict-origin"
    return response
