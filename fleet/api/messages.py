"""A message comes in: from a person's own program, or from a gateway that speaks for the senders of its account."""

from __future__ import annotations

import time
import uuid
from typing import Any

from django.db import connection
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from conversations import actions
from conversations.actions import Intake, Received
from conversations.models import Turn
from conversations.ports import UnifiedMessage, has_sender
from conversations.states import TURN, TurnState
from fleet.api.base import ApiView, actor_of, body_of, checked, gateway_of, person_of
from fleet.api.errors import status_of
from fleet.api.serializers import (
    AcceptedSerializer,
    ErrorSerializer,
    MessageSerializer,
    TurnSerializer,
    WaitSerializer,
)
from fleet.following import wait_until_ended
from fleet.kernel.exceptions import Invalid, Refused
from governance import queries as governance_queries
from identities.models import AccessToken, Person

_KEY = "Idempotency-Key"
_LONGEST_KEY = 100
_DOC: dict[str, Any] = {
    "request": MessageSerializer,
    "parameters": [
        WaitSerializer,
        OpenApiParameter(
            _KEY, str, OpenApiParameter.HEADER, description="repeat a request with the same key as often as you like"
        ),
    ],
    "responses": {
        200: TurnSerializer,
        202: AcceptedSerializer,
        **dict.fromkeys((400, 401, 403, 404, 409, 411, 413, 415, 429, 503), ErrorSerializer),
    },
}


class Messages(ApiView):
    """Send a message to a bot.

    202 as soon as it is stored and taken in. With `?wait=30` the answer is held back for up to that many seconds: 200 with the
    whole turn when it has ended by then. The same idempotency key with the same body gives the first ids again.
    """

    @extend_schema(operation_id="send_message", **_DOC)
    def post(self, request: Request) -> Response:
        """Take the message in and answer with its turn."""
        seconds = checked(WaitSerializer, request.query_params.dict())["wait"]
        body = body_of(request, MessageSerializer)
        key = _key(request, body)
        gateway = gateway_of(request)
        message = _from_gateway(gateway, body, key) if gateway else _from_person(person_of(request), body, key)
        received, intake = actions.accept(message, by=actor_of(request))
        return _answer(received, intake, seconds)


class Message(Messages):
    """The same under a short name, for gateways."""

    @extend_schema(operation_id="send_message_short", **_DOC)
    def post(self, request: Request) -> Response:
        """Take the message in and answer with its turn."""
        return super().post(request)


def _key(request: Request, body: dict[str, Any]) -> str:
    """Return the caller's idempotency key, or a fresh one; Invalid when header and body disagree."""
    header, field = request.headers.get(_KEY, ""), body.get("event_id", "")
    if header and field and header != field:
        raise Invalid("There are two idempotency keys.", why="Header and event_id differ.", next_step="Send only one.")
    key = header or field or str(uuid.uuid4())
    if len(key) > _LONGEST_KEY or not key.isprintable():
        raise Invalid(
            "The idempotency key cannot be used.",
            why=f"It may have at most {_LONGEST_KEY} printable characters.",
            next_step="Send a UUID.",
        )
    return key


def _from_person(person: Person, body: dict[str, Any], key: str) -> UnifiedMessage:
    """Return the message of somebody who is signed in; their keys and conversations are theirs alone."""
    if "sender" in body:
        raise Invalid(
            "You cannot speak for somebody else.",
            why="Only a gateway's token may name a sender.",
            next_step="Leave out the field sender.",
        )
    if "identity" not in body:
        raise Invalid("No bot is named.", next_step="Put its slug into the field identity.")
    slug = body["identity"]
    return UnifiedMessage(
        account=f"api:{slug}",
        event_id=f"{person.pk}:{key}",
        identity_slug=slug,
        chat_id=f"{person.pk}:{body['chat_id']}",
        thread_id=body["thread_id"],
        message_id=body["message_id"],
        sender_id=str(person.pk),
        sender_name=person.get_full_name() or person.get_username(),
        person_id=person.pk,
        text=body["text"],
    )


def _from_gateway(token: AccessToken, body: dict[str, Any], key: str) -> UnifiedMessage:
    """Return the message of a sender on a gateway's platform; the token's account decides which bot is meant."""
    account = token.gateway_account
    slug = account.partition(":")[2]
    if body.get("identity", slug) != slug:
        raise Refused(
            f"This gateway cannot speak to {body['identity']}.",
            why=f"Its token belongs to the account {account}.",
            next_step="Leave out the field identity, or use the token of that bot's account.",
            code="other_account",
        )
    if "sender" not in body or not body["chat_id"]:
        raise Invalid("The sender or the chat is missing.", next_step="A gateway names sender.id and chat_id.")
    # Where no process of ours speaks, people's own conversations may be kept too: a gateway must not be able to name one of them.
    own = "" if has_sender(account) else f"g{token.pk}:"
    return UnifiedMessage(
        account=account,
        event_id=own + key,
        identity_slug=slug,
        chat_id=own + body["chat_id"],
        thread_id=body["thread_id"],
        message_id=body["message_id"],
        sender_id=body["sender"]["id"],
        sender_name=body["sender"]["name"],
        text=body["text"],
    )


def _answer(received: Received, intake: Intake, seconds: float) -> Response:
    ids: dict[str, Any] = {"inbound_id": received.inbound_id, "turn_id": intake.turn_id}
    if intake.refusal is not None:
        return _refused(intake.refusal, ids)
    if intake.turn_id is None:
        done = intake.kind == "command"
        said = {"text": intake.answer} if done else {}
        state = {"status": "answered" if done else "received", "events_url": None, "turn_url": None}
        return _reply({**ids, **state, **said}, received, status.HTTP_200_OK if done else status.HTTP_202_ACCEPTED)
    turn = _turn(intake.turn_id)
    if seconds and turn.state not in TURN.final:
        turn = _wait_for(turn, seconds)
    if turn.state == TurnState.REFUSED:
        return _refused(_refusal_of(turn), ids)
    shown = TurnSerializer(turn).data
    if seconds and turn.state in TURN.final:
        return _reply({"inbound_id": received.inbound_id, **shown}, received, status.HTTP_200_OK)
    links = {name: shown[name] for name in ("status", "events_url", "turn_url")}
    return _reply({**ids, **links}, received, status.HTTP_202_ACCEPTED)


def _wait_for(turn: Turn, seconds: float) -> Turn:
    """Return the turn when it has ended or the time is over; one whose message the running turn took is waited for there."""
    until = time.monotonic() + seconds
    while turn.state not in TURN.final and (left := until - time.monotonic()) > 0:
        connection.close()  # nothing is held while waiting
        wait_until_ended(turn.pk, conversation_id=turn.conversation_id, seconds=left)
        turn = _turn(turn.pk)
        turn = _turn(turn.taken_by_id) if turn.taken_by_id else turn
    return turn


def _turn(turn_id: int) -> Turn:
    return Turn.objects.select_related("identity", "person", "execution").get(pk=turn_id)


def _refusal_of(turn: Turn) -> dict[str, Any]:
    """Return the refusal of a turn that was not admitted, with the code that the gate gave."""
    decision = next(iter(governance_queries.decisions(origin=("turn", turn.pk), limit=1)), None)
    code = decision.reason_code if decision else "refused"
    return {"code": code, "what": turn.sentence, "why": "", "next_step": turn.next_step}


def _refused(refusal: dict[str, Any], ids: dict[str, Any]) -> Response:
    error = Refused(refusal["what"], code=refusal["code"])
    return Response({**refusal, **ids, "status": "refused"}, status=status_of(error))


def _reply(body: dict[str, Any], received: Received, code: int) -> Response:
    headers = {"Idempotent-Replayed": "true"} if received.duplicate else None
    return Response(body, status=code, headers=headers)
