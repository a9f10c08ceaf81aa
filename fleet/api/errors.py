"""Every error of the API has the same four fields: code, what, why, next_step."""

from __future__ import annotations

from typing import Any

from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from fleet.errors import explain
from fleet.kernel.exceptions import FleetError


def answer(exception: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer to an exception of a view; None for one that nobody can explain (Django answers 500)."""
    error = explain(exception)
    if error is not None:
        return Response(error.as_dict(), status=error.status)
    response = exception_handler(exception, context)
    if response is not None and isinstance(exception, exceptions.APIException):
        response.data = FleetError(str(exception.detail), code=str(exception.default_code)).as_dict()
    return response
