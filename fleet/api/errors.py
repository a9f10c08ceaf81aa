"""Every error of the API has the same four fields: code, what, why, next_step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from fleet.api.authentication import CHALLENGE
from fleet.errors import explain
from fleet.kernel.exceptions import FleetError, NotFound

SCHEMA = "See /api/schema/ for the format."

# Refusals whose reason says more than 403 does; the code is the contract, the status is a courtesy to HTTP clients.
STATUS_OF: dict[str, int] = {
    "empty": 400,
    "unreadable": 400,
    "unknown_command": 400,
    "unknown_bot": 404,
    "too_long": 413,
    "bot_draft": 409,
    "bot_paused": 409,
    "bot_retired": 409,
    "queue_full": 429,
    "wait": 429,
    "spent": 429,
    "no_provider": 503,
}

_HEADERS = {401: {"WWW-Authenticate": CHALLENGE}, 503: {"Retry-After": "5"}}

_WORDS: dict[type[exceptions.APIException], tuple[str, str, str]] = {
    exceptions.NotAuthenticated: (
        "not_signed_in",
        "You are not signed in.",
        "Send an access token as a Bearer header, or sign in.",
    ),
    exceptions.AuthenticationFailed: (
        "wrong_token",
        "The access token is not valid.",
        "Create a new one in the console under Account; the old one may be expired or revoked.",
    ),
    exceptions.ParseError: ("invalid_json", "The body is not JSON in UTF-8.", SCHEMA),
    exceptions.UnsupportedMediaType: ("media_type", "The body's type is not understood.", "Send application/json."),
    exceptions.MethodNotAllowed: ("method", "This address does not take this method.", SCHEMA),
    exceptions.PermissionDenied: ("refused", "You may not do this.", "Sign in again and reload the page."),
}


def status_of(error: FleetError) -> int:
    """Return the HTTP status of an error: by the refusal's code where that says more, else by its kind."""
    return STATUS_OF.get(error.code, error.status)


def answer(exception: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer to an exception of a view; None for one that nobody can explain (Django answers 500)."""
    set_rollback()
    if isinstance(exception, Http404):
        exception = NotFound("There is nothing at this address.", next_step=SCHEMA)
    error = explain(exception)
    if error is not None:
        return Response(error.as_dict(), status=status_of(error), headers=_HEADERS.get(status_of(error)))
    if isinstance(exception, exceptions.ValidationError):
        return Response(_validation(exception), status=400)
    if isinstance(exception, exceptions.APIException):
        return _from_framework(exception)
    return None


def _from_framework(exception: exceptions.APIException) -> Response:
    code, what, next_step = _WORDS.get(type(exception), ("error", "The request was not understood.", SCHEMA))
    error = FleetError(what, why=str(exception.detail), next_step=next_step, code=code)
    return Response(error.as_dict(), status=exception.status_code, headers=_HEADERS.get(exception.status_code))


def _validation(exception: exceptions.ValidationError) -> dict[str, str]:
    why = " ".join(_lines(exception.detail))
    return FleetError("The body cannot be used as it is.", why=why, next_step=SCHEMA, code="invalid").as_dict()


def _lines(detail: Any, name: str = "") -> Iterator[str]:
    """Yield `text: This field is required.` for each complaint, however deep it sits."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            yield from _lines(value, key if not name or key == "non_field_errors" else f"{name}.{key}")
    elif isinstance(detail, list):
        for value in detail:
            yield from _lines(value, name)
    else:
        yield f"{name}: {detail}" if name and name != "non_field_errors" else str(detail)
