"""How an error leaves the house: JSON for programs, a page for people, always with what, why and the next step."""

from __future__ import annotations

import structlog
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseBase,
    HttpResponseForbidden,
    HttpResponseNotAllowed,
    JsonResponse,
)
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.urls import is_valid_path
from django.utils.deprecation import MiddlewareMixin
from django.views import defaults

from fleet.kernel import database
from fleet.kernel.exceptions import FleetError, Invalid, NotFound, Refused, Unavailable

log = structlog.get_logger(__name__)
_PROGRAM_PATHS = ("/message", "/healthz", "/readyz", "/metrics")
_PAGE = "errors/fleet_error.html"


class BodyTooLarge(FleetError):
    """The body is longer than anything that is read here."""

    status = 413
    code = "too_long"


class WrongMethod(FleetError):
    """The address takes another method. `page` is where a person goes on."""

    status = 405
    code = "method"

    def __init__(self, request: HttpRequest, allowed: str) -> None:
        self.page = _page_above(request.path)
        if request.method in ("GET", "HEAD"):
            what, why = "This address is not a page.", "It only takes what a form or a button sends to it."
        else:
            what, why = "This address does not take what was sent.", f"It takes {allowed} and not {request.method}."
        super().__init__(what, why=f"{why} Nothing was done.", next_step="Go on from the page it belongs to.")


class FleetErrorMiddleware(MiddlewareMixin):
    """Turns an error that Fleet can explain into an answer, and a bare refusal of a method; leaves every other to Django."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Return the answer; Django's own to a wrong method is an empty page, which nobody who reloads one could read."""
        if not isinstance(response, HttpResponseNotAllowed) or response.content:
            return response
        explained = answer(request, WrongMethod(request, response["Allow"]))
        explained["Allow"] = response["Allow"]
        return explained

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the answer, or None when there is nothing to explain."""
        error = explain(exception)
        return answer(request, error) if error else None


def explain(exception: Exception) -> FleetError | None:
    """Return the error as Fleet tells it, or None for one that only a developer can explain."""
    if isinstance(exception, FleetError):
        return exception
    if isinstance(exception, database.AWAY):
        return database.unavailable(exception)
    if isinstance(exception, RequestDataTooBig):
        most = (settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0) // 1024
        return BodyTooLarge("The request is too long.", why=f"At most {most} kB are read.", next_step="Send less.")
    return None


def wants_json(request: HttpRequest) -> bool:
    """Return whether a program asks, by the address it asks for."""
    return request.path.startswith("/api/") or request.path in _PROGRAM_PATHS


def answer(request: HttpRequest, error: FleetError) -> HttpResponse:
    """Return the error as this caller reads it, with its HTTP status."""
    if wants_json(request):
        response: HttpResponse = JsonResponse(error.as_dict(), status=error.status)
    else:
        response = _page(request, error)
    if isinstance(error, Unavailable):
        response["Retry-After"] = "5"
    return response


def _page(request: HttpRequest, error: FleetError) -> HttpResponse:
    try:
        return HttpResponse(render_to_string(_PAGE, {"error": error}, request), status=error.status)
    except (TemplateDoesNotExist, *database.AWAY):
        return HttpResponse(error.sentence, status=error.status, content_type="text/plain; charset=utf-8")


def _page_above(path: str) -> str:
    """Return the page that an address belongs to, as /logins/ is for /logins/7/reset/; every first part of one is a page."""
    first = f"/{path.lstrip('/').partition('/')[0]}/"
    return first if is_valid_path(first) else "/"


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    """Answer a form that Django did not take for its own (CSRF_FAILURE_VIEW)."""
    if wants_json(request):
        return answer(request, Refused("You may not do this.", why=reason, next_step="Reload the page and try again."))
    return HttpResponseForbidden(render_to_string("403_csrf.html", {"page": _page_above(request.path)}, request))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a request that Django itself could not read (handler400)."""
    if wants_json(request):
        return answer(request, Invalid("The request was not understood.", next_step="See /api/schema/ for the format."))
    try:
        return HttpResponseBadRequest(render_to_string("400.html", {}, request))
    except Exception:  # a host that is not ours, or cookies that are none: without them the page comes out as well
        return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a request that Django itself refused (handler403)."""
    if wants_json(request):
        return answer(request, Refused("You may not do this.", next_step="Sign in again."))
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer for an address that leads nowhere (handler404)."""
    if wants_json(request):
        return answer(request, NotFound("There is nothing at this address.", next_step="See /api/schema/."))
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer when nobody can explain what happened (handler500); the traceback is in the log."""
    if wants_json(request):
        error = FleetError(
            "Fleet made a mistake.", why="It is written down in its log.", next_step="Try again; then tell an operator."
        )
        return answer(request, error)
    return defaults.server_error(request)
