"""What every view of the API shares: JSON in, JSON out, a bounded body, and a person behind each request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from drf_spectacular.utils import inline_serializer
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.serializers import IntegerField, Serializer
from rest_framework.views import APIView

from fleet.api.serializers import PageSerializer
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError, Invalid
from identities.models import AccessToken, Person


class LengthRequired(FleetError):
    """A body came in chunks, and nobody said how long it is."""

    status = 411
    code = "length_required"


class StrictJSON(JSONParser):
    """JSON in UTF-8, whatever the request says about its encoding; too deep a nesting is an error and not a crash."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the body's value; ParseError for anything that is not JSON in UTF-8."""
        try:
            return super().parse(stream, media_type, {**(parser_context or {}), "encoding": "utf-8"})
        except RecursionError:
            raise ParseError("It is nested too deeply.") from None


class AlwaysJSON(DefaultContentNegotiation):
    """One format for everybody: a browser's or an event source's Accept header changes nothing."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the first renderer."""
        first = next(iter(renderers))
        return first, str(first.media_type)


class ApiView(APIView):
    """The base of every view here."""

    parser_classes = [StrictJSON]
    content_negotiation_class = AlwaysJSON


def person_of(request: Request) -> Person:
    """Return the person behind the request; the matrix has made sure that there is one."""
    if not isinstance(request.user, Person):
        raise TypeError("this view was reached without a person")
    return request.user


def actor_of(request: Request) -> Actor:
    """Return who does it: the person, or the gateway whose token was sent."""
    gateway = gateway_of(request)
    return Actor.system(f"gateway:{gateway.gateway_account}") if gateway else Actor.person(person_of(request))


def gateway_of(request: Request) -> AccessToken | None:
    """Return the gateway's token, None for a person's token or session."""
    token = request.auth
    return token if isinstance(token, AccessToken) and token.gateway else None


def checked(serializer: type[Serializer[Any]], data: Any) -> dict[str, Any]:
    """Return the fields of `data` as the serializer understands them; ValidationError otherwise."""
    form = serializer(data=data)
    form.is_valid(raise_exception=True)
    fields: dict[str, Any] = form.validated_data
    return fields


def body_of(request: Request, serializer: type[Serializer[Any]]) -> dict[str, Any]:
    """Return the fields of the request's body; ParseError, ValidationError or LengthRequired when it cannot be used."""
    if "Content-Length" not in request.headers and "Transfer-Encoding" in request.headers:
        raise LengthRequired("The body has no length.", next_step="Send it with a Content-Length and not in chunks.")
    return checked(serializer, request.data)


def page_of(request: Request) -> dict[str, Any]:
    """Return `before` and `limit` of a list's address."""
    fields = checked(PageSerializer, request.query_params.dict())
    return {"before": fields.get("before"), "limit": fields["limit"]}


def page_schema(name: str, rows: type[Serializer[Any]]) -> Serializer[Any]:
    """Return how one page of a list looks in the document."""
    return inline_serializer(name, {"results": rows(many=True), "before": IntegerField(allow_null=True)})


def whole_number(text: str, *, name: str) -> int:
    """Return a whole number that came as text; Invalid when it is none or no row could have it."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(f"{name} is not a number.", why=f"It is {text[:40]!r}.", next_step="Send digits only.")
    return int(text)
