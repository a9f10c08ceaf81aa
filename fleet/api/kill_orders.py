"""The kill switch: stop, see the proof, lift."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.api.base import ApiView, actor_of, body_of, checked, page_of, page_schema, whole_number
from fleet.api.serializers import (
    AfterSerializer,
    ErrorSerializer,
    KillOrderSerializer,
    KillReceiptSerializer,
    PageSerializer,
    ReasonSerializer,
    StopSerializer,
)
from fleet.kernel.exceptions import NotFound
from governance import actions, queries
from governance.models import KillOrder
from governance.states import KillScope
from identities import queries as identity_queries

_ERRORS = dict.fromkeys((400, 401, 403, 404, 409, 411, 413, 415), ErrorSerializer)


class KillOrders(ApiView):
    """Kill orders in force, and new ones."""

    @extend_schema(
        operation_id="list_kill_orders",
        parameters=[PageSerializer],
        responses={
            200: page_schema("KillOrderPage", KillOrderSerializer),
            **dict.fromkeys((400, 401), ErrorSerializer),
        },
    )
    def get(self, request: Request) -> Response:
        """Return one page of the orders in force, the newest first; `before` of the answer asks for the next, null at the end."""
        page = page_of(request)
        rows = list(queries.orders_in_force(**page))
        before = rows[-1].pk if len(rows) == page["limit"] else None
        return Response({"results": KillOrderSerializer(rows, many=True).data, "before": before})

    @extend_schema(operation_id="stop", request=StopSerializer, responses={201: KillReceiptSerializer, **_ERRORS})
    def post(self, request: Request) -> Response:
        """Give an order: it is in force when this answers; its receipt fills up as processes, queues and channels fall silent."""
        wanted = body_of(request, StopSerializer)
        _check_target(wanted["scope"], wanted["scope_id"])
        order = actions.stop(**wanted, by=actor_of(request))
        return Response(_receipt(order.pk), status=201)


class KillOrderDetail(ApiView):
    """One order with its receipt."""

    @extend_schema(
        operation_id="read_kill_order", parameters=[AfterSerializer], responses={200: KillReceiptSerializer, **_ERRORS}
    )
    def get(self, request: Request, order_id: int) -> Response:
        """Return what the order had to silence and when each part was quiet; `after` of the answer asks for the next lines."""
        return Response(_receipt(order_id, after=checked(AfterSerializer, request.query_params.dict())["after"]))


class KillOrderLift(ApiView):
    """Lift an order."""

    @extend_schema(
        operation_id="lift_kill_order", request=ReasonSerializer, responses={200: KillReceiptSerializer, **_ERRORS}
    )
    def post(self, request: Request, order_id: int) -> Response:
        """Let work start again."""
        reason = body_of(request, ReasonSerializer)["reason"]
        actions.lift(order=_order(order_id), reason=reason, by=actor_of(request))
        return Response(_receipt(order_id))


def _check_target(scope: str, scope_id: str) -> None:
    """Raise NotFound for a bot nobody knows, Invalid for a row that is not named by its number."""
    if scope == KillScope.IDENTITY:
        identity_queries.get_identity(scope_id)
    elif scope in (KillScope.CONVERSATION, KillScope.EXECUTION):
        whole_number(scope_id, name="scope_id")


def _order(order_id: int) -> KillOrder:
    order = queries.get_order(order_id)
    if order is None:
        raise NotFound("There is no such kill order.", next_step="List the ones in force.")
    return order


def _receipt(order_id: int, *, after: int = 0) -> dict[str, object]:
    return dict(KillReceiptSerializer(queries.receipt(_order(order_id), after=after)).data)
