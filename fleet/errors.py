"""How an error leaves the house: JSON for programs, a page for people, always with what, why and the next step."""

from __future__ import annotations

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.utils.deprecation import MiddlewareMixin
from psycopg_pool import PoolTimeout

from fleet.kernel.exceptions import FleetError, Unavailable

log = structlog.get_logger(__name__)
_PROGRAM_PATHS = ("/api/", "/message", "/healthz", "/readyz", "/metrics")
_PAGE = "errors/fleet_error.html"


class FleetErrorMiddleware(MiddlewareMixin):
    """Turns an error that Fleet can explain into an answer; leaves every other to Django."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the answer, or None when there is nothing to explain."""
        error = explain(exception)
        return answer(request, error) if error else None


def explain(exception: Exception) -> FleetError | None:
    """Return the error as Fleet tells it, or None for one that only a developer can explain."""
    if isinstance(exception, FleetError):
        return exception
    if isinstance(exception, OperationalError | InterfaceError | PoolTimeout):
        log.warning("database.away", error=str(exception).splitlines()[0])
        return Unavailable(
            "Fleet cannot reach its database.",
            why="PostgreSQL does not answer, or is starting again.",
            next_step="Try again in a few seconds. Nothing that was accepted is lost.",
            code="database_away",
        )
    return None


def wants_json(request: HttpRequest) -> bool:
    """Return whether a program asks, by the address it asks for."""
    return request.path.startswith(_PROGRAM_PATHS)


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
    except (TemplateDoesNotExist, OperationalError, InterfaceError):
        return HttpResponse(error.sentence, status=error.status, content_type="text/plain; charset=utf-8")
