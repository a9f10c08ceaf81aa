"""How every view answers: a whole page, or only the part that a live region asks for."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any
from urllib.parse import urlencode

from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from identities.models import Person


def show(
    request: HttpRequest, template: str, context: dict[str, Any], *, part: str = "", status: int = 200
) -> HttpResponse:
    """Return the page, or its named `part` when htmx asks; browsers must not take one for the other."""
    name = f"{template}#{part}" if part and getattr(request, "htmx", False) else template
    with timezone.override(_zone_of(request)):
        response = render(request, name, context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    patch_cache_control(response, private=True, no_cache=True)
    return response


def _zone_of(request: HttpRequest) -> dt.tzinfo | None:
    """Return the clock that this person reads; None for the server's, also when theirs is not known here."""
    name = request.user.timezone if isinstance(request.user, Person) else ""
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError):
        return None


def secret(response: HttpResponse) -> HttpResponse:
    """Return the answer so that no cache keeps it: it shows something that is shown only once."""
    patch_cache_control(response, private=True, no_store=True)
    return response


def person_of(request: HttpRequest) -> Person:
    """Return who is signed in; the matrix of routes has made sure that somebody is."""
    if not isinstance(request.user, Person):
        raise TypeError("this view was reached without a person")
    return request.user


def actor_of(request: HttpRequest) -> Actor:
    """Return who does it."""
    return Actor.person(person_of(request))


def complaints(form: Form) -> str:
    """Return everything a form has to say against its input, in one line."""
    return " ".join(str(error) for errors in form.errors.values() for error in errors)


def number(request: HttpRequest, name: str) -> int | None:
    """Return a whole number of the address, None when it is not there; Invalid for anything else."""
    text = request.GET.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(f"“{name}” in the address is not a number.", next_step="Go back to the first page of the list.")
    return int(text)


def pager(request: HttpRequest, **following: object) -> dict[str, str]:
    """Return the links of a list paged by key: back to its first page, and on to the next; other filters stay."""
    kept = {name: value for name, value in request.GET.items() if name not in following}
    turned = any(name in request.GET for name in following)
    onward = {name: value for name, value in following.items() if value is not None}
    return {
        "first_url": _address(request, kept) if turned else "",
        "next_url": _address(request, {**kept, **onward}) if onward else "",
    }


def _address(request: HttpRequest, query: dict[str, Any]) -> str:
    return f"{request.path}?{urlencode(query)}" if query else request.path
