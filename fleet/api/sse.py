"""Server-sent events of a turn. Each is known by its execution and its sequence there, so a lost connection goes on where it ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection

from conversations.models import Turn
from execution.models import ExecutionEvent
from fleet.api.serializers import TurnSerializer
from fleet.following import Place, follow
from gateways.threads import in_thread

HEARTBEAT_SECONDS = 15.0
_RECONNECT_AFTER_MS = 1000


async def stream(turn_id: int, *, conversation_id: int, after: Place) -> AsyncIterator[bytes]:
    """Yield the events after a place as they happen, a comment when nothing does, and `end` with the whole turn."""
    await sync_to_async(lambda: connection.close())()  # the request's own connection: the stream may last long
    yield f"retry: {_RECONNECT_AFTER_MS}\n\n".encode()
    state = ""
    async for glimpse in follow(turn_id, conversation_id=conversation_id, after=after, heartbeat=HEARTBEAT_SECONDS):
        if glimpse is None:
            yield b": still here\n\n"
            continue
        if glimpse.state != state:
            state = glimpse.state
            yield _message("state", {"state": state})
        for event in glimpse.events:
            yield _event(event)
    yield _message("end", await in_thread(_whole, turn_id))


def _whole(turn_id: int) -> dict[str, Any]:
    turn = Turn.objects.select_related("identity", "person", "execution").get(pk=turn_id)
    return dict(TurnSerializer(turn).data)


def _event(event: ExecutionEvent) -> bytes:
    body = {"sequence": event.sequence, "at": event.at, "payload": event.payload}
    return _message(event.kind, body, identifier=f"{event.execution_id}-{event.sequence}")


def _message(kind: str, body: dict[str, Any], *, identifier: str = "") -> bytes:
    head = f"id: {identifier}\n" if identifier else ""
    return f"{head}event: {kind}\ndata: {json.dumps(body, cls=DjangoJSONEncoder)}\n\n".encode()
