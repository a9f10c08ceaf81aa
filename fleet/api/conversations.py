"""Conversations and what was said in them, paged by id."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from conversations import actions, policies, queries
from fleet.api.base import ApiView, actor_of, body_of, page_of, page_schema, person_of
from fleet.api.serializers import (
    BusyModeSerializer,
    ConversationSerializer,
    ErrorSerializer,
    PageSerializer,
    SaidSerializer,
)

_ERRORS = dict.fromkeys((400, 401, 403, 404), ErrorSerializer)
_WRITE_ERRORS = dict.fromkeys((400, 401, 403, 404, 411, 413, 415), ErrorSerializer)


class Conversations(ApiView):
    """The conversations you may read, newest first."""

    @extend_schema(
        operation_id="list_conversations",
        parameters=[PageSerializer],
        responses={200: page_schema("ConversationPage", ConversationSerializer), **_ERRORS},
    )
    def get(self, request: Request) -> Response:
        """Return one page; `before` of the answer asks for the next, null at the end."""
        page = page_of(request)
        rows = list(queries.conversations_of(person_of(request), **page))
        before = rows[-1].pk if len(rows) == page["limit"] else None
        return Response({"results": ConversationSerializer(rows, many=True).data, "before": before})


class ConversationDetail(ApiView):
    """One conversation."""

    @extend_schema(operation_id="read_conversation", responses={200: ConversationSerializer, **_ERRORS})
    def get(self, request: Request, conversation_id: int) -> Response:
        """Return the conversation."""
        row = queries.get_conversation(conversation_id, person=person_of(request))
        return Response(ConversationSerializer(row).data)

    @extend_schema(
        operation_id="change_conversation",
        request=BusyModeSerializer,
        responses={200: ConversationSerializer, **_WRITE_ERRORS},
    )
    def patch(self, request: Request, conversation_id: int) -> Response:
        """Decide what becomes of messages that find the bot busy here, from the next one on; as /busy does in a chat."""
        row = queries.get_conversation(conversation_id, person=person_of(request))
        policies.check_can_set_busy_mode(row, person_of(request))
        mode = body_of(request, BusyModeSerializer)["busy_mode"]
        actions.set_busy_mode(conversation=row, mode=mode, by=actor_of(request))
        return Response(ConversationSerializer(row).data)


class ConversationMessages(ApiView):
    """What was said in a conversation."""

    @extend_schema(
        operation_id="list_messages",
        parameters=[PageSerializer],
        responses={200: page_schema("MessagePage", SaidSerializer), **_ERRORS},
    )
    def get(self, request: Request, conversation_id: int) -> Response:
        """Return the last messages, oldest first; `before` of the answer asks for those before them."""
        page = page_of(request)
        conversation = queries.get_conversation(conversation_id, person=person_of(request))
        rows = queries.transcript(conversation, **page)
        before = rows[0].pk if len(rows) == page["limit"] else None
        return Response({"results": SaidSerializer(rows, many=True).data, "before": before})
