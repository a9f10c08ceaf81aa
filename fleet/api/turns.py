"""Turns: read one, follow one, stop one."""

from __future__ import annotations

from functools import partial

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from conversations import actions, queries
from conversations.models import Turn
from fleet.api import sse
from fleet.api.base import ApiView, actor_of, body_of, gateway_of, person_of, whole_number
from fleet.api.serializers import ErrorSerializer, OptionalReasonSerializer, TurnSerializer
from fleet.following import Place
from fleet.kernel.exceptions import NotFound, Refused
from identities.permissions import Permission

_READ_ERRORS = dict.fromkeys((401, 403, 404), ErrorSerializer)


def readable_turn(request: Request, turn_id: int) -> Turn:
    """Return the turn when the caller may see it: a person their own, or any with the right to; a gateway its account's."""
    person = person_of(request)
    gateway = gateway_of(request)
    if gateway is None:
        return queries.get_turn(turn_id, person=person)
    rows = Turn.objects.select_related("conversation", "identity", "execution", "person")
    turn = rows.filter(pk=turn_id, conversation__account=gateway.gateway_account).first()
    if turn is None:
        raise NotFound("There is no such turn.", next_step="Check the number.")
    return turn


class TurnDetail(ApiView):
    """One turn with its answer and receipt."""

    @extend_schema(operation_id="read_turn", responses={200: TurnSerializer, **_READ_ERRORS})
    def get(self, request: Request, turn_id: int) -> Response:
        """Return the turn as it stands."""
        return Response(TurnSerializer(readable_turn(request, turn_id)).data)


class TurnEvents(ApiView):
    """What happens in a turn, as server-sent events.

    `state` when the turn moves; `text`, `tool_started`, `usage` … with an id; `end` with the whole turn. A comment
    every 15 seconds keeps the line open. Reconnect with `Last-Event-ID` or `?after=` to go on without a gap.
    """

    @extend_schema(
        operation_id="follow_turn",
        parameters=[
            OpenApiParameter("after", str, description="only events after the one with this id"),
            OpenApiParameter("Last-Event-ID", str, OpenApiParameter.HEADER, description="the same; wins over `after`"),
        ],
        responses={
            (200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, description="events until the turn ends"),
            **dict.fromkeys((400, 401, 403, 404), ErrorSerializer),
        },
    )
    def get(self, request: Request, turn_id: int) -> StreamingHttpResponse:
        """Stream the events after the given one."""
        turn = readable_turn(request, turn_id)
        given = request.headers.get("Last-Event-ID") or request.query_params.get("after") or "0"
        events = sse.stream(turn.pk, conversation_id=turn.conversation_id, after=_place(given))
        response = StreamingHttpResponse(events, content_type="text/event-stream")
        response["Cache-Control"] = "no-store"
        response["X-Accel-Buffering"] = "no"
        return response


def _place(given: str) -> Place:
    """Return the place that an event's id names, or a bare sequence; Invalid when it is neither."""
    execution, dash, sequence = given.rpartition("-")
    number = partial(whole_number, name="Last-Event-ID or after")
    return Place(number(execution) if dash else None, number(sequence))


class TurnStop(ApiView):
    """Stop a turn: a waiting one at once, a running one through its worker."""

    @extend_schema(
        operation_id="stop_turn",
        request=OptionalReasonSerializer,
        responses={202: TurnSerializer, **dict.fromkeys((400, 401, 403, 404, 411, 413, 415), ErrorSerializer)},
    )
    def post(self, request: Request, turn_id: int) -> Response:
        """Ask for the stop and answer at once; the events tell when everything is silent."""
        turn = readable_turn(request, turn_id)
        person = person_of(request)
        if turn.person_id != person.pk and Permission.TURN_STOP not in person.permissions:
            raise Refused(
                "You may not stop this turn.",
                why="It is somebody else's, and none of your roles may stop turns of others.",
                next_step="Ask an operator.",
                code="no_right",
            )
        reason = body_of(request, OptionalReasonSerializer)["reason"] or f"stopped by {person.get_username()}"
        actions.stop_turn(turn_id=turn.pk, by=actor_of(request), reason=reason)
        return Response(TurnSerializer(readable_turn(request, turn_id)).data, status=202)
