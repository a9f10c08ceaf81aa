"""The inbox: a row first, then everything else. Only after its commit may a platform be told that we have the message."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict, dataclass

import rfc8785
from django.db import IntegrityError, transaction

from conversations import events
from conversations.actions.intake import Intake, process
from conversations.actions.refusals import refuse
from conversations.models import InboundMessage
from conversations.policies import check_text, readable
from conversations.ports import UnifiedMessage
from fleet.kernel import journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused, StateConflict
from governance.states import Gate


@dataclass(frozen=True, slots=True)
class Received:
    """The stored row of a message; `duplicate` when the same event had been stored before."""

    inbound_id: int
    uuid: uuid.UUID
    duplicate: bool


def receive(message: UnifiedMessage, *, by: Actor, refusal: Refused | None = None) -> Received:
    """Store `message` in one short transaction and return its row.

    The same event again returns the first row. The same `event_id` with another body raises StateConflict: nothing is stored.
    A text no bot could answer is stored as refused, with its reason, and the sender is told; so is any message for which the
    adapter gives a `refusal`, because its content (a sticker, an edit) cannot be carried.
    """
    digest = digest_of(message)
    try:
        with transaction.atomic():
            row = _insert(message, digest)
            journal.record(events.RECEIVED, by=by, subject=("inbound_message", row.pk), account=row.account)
            _refuse_unusable(row, message.text, refusal)
    except IntegrityError:
        return _known(message, digest)
    return Received(row.pk, row.uuid, duplicate=False)


def accept(message: UnifiedMessage, *, by: Actor) -> tuple[Received, Intake]:
    """Receive and process in one call, for adapters that answer at once (console, API, command line)."""
    received = receive(message, by=by)
    return received, process(received.inbound_id)


def digest_of(message: UnifiedMessage) -> str:
    """Return the SHA-256 (hex) over what the sender said; times do not count."""
    body = asdict(message)
    body.pop("platform_at")
    body["text"] = message.text.encode("utf-8", "surrogatepass").hex()
    body["person_id"] = str(message.person_id)
    return hashlib.sha256(rfc8785.dumps(body)).hexdigest()


def _insert(message: UnifiedMessage, digest: str) -> InboundMessage:
    return InboundMessage.objects.create(
        account=message.account,
        event_id=message.event_id,
        digest=digest,
        identity_slug=readable(message.identity_slug)[:60],
        kind=message.kind,
        chat_id=message.chat_id,
        thread_id=message.thread_id,
        message_id=message.message_id,
        sender_id=message.sender_id,
        sender_name=readable(message.sender_name)[:150],
        sender_kind=message.sender_kind,
        person_id=message.person_id,
        text=readable(message.text),
        media=message.media,
        platform_at=message.platform_at,
    )


def _known(message: UnifiedMessage, digest: str) -> Received:
    """Return the row of an event that was stored before, or object to another body under its key."""
    row = InboundMessage.objects.get(account=message.account, event_id=message.event_id)
    if row.digest != digest:
        raise StateConflict(
            "This idempotency key was used before with another message.",
            why="A key stands for one message; using it again must repeat that message exactly.",
            next_step="Use a new key for a new message.",
            code="idempotency_mismatch",
        )
    return Received(row.pk, row.uuid, duplicate=True)


def _refuse_unusable(row: InboundMessage, original: str, refusal: Refused | None) -> None:
    """Turn the fresh row into a stored, explained refusal when it cannot be answered."""
    try:
        if refusal:
            raise refusal
        check_text(original)
    except Refused as unusable:
        refuse(row, unusable, gate=Gate.INTAKE)
