"""The outbox: a row before the call, a receipt after it, and an honest `unknown` when neither is certain."""

from __future__ import annotations

import datetime as dt
from functools import reduce
from operator import or_
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce

from conversations import events
from conversations.models import Delivery, InboundMessage, Message, Turn
from conversations.policies import check_can_send_again
from conversations.ports import has_sender, platform_of, sending_platforms
from conversations.states import DELIVERY, Author, DeliveryKind, DeliveryState
from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.sweeping import each
from fleet.kernel.transitions import move
from governance import queries as governance_queries

FRESH_FOR = dt.timedelta(hours=24)
SENDING_AT_MOST = dt.timedelta(seconds=60)
DOUBT_MARK = "(possibly repeated) "


def deliver(
    *,
    account: str,
    chat_id: str,
    kind: DeliveryKind,
    text: str,
    by: Actor,
    thread_id: str = "",
    reply_to: str = "",
    turn: Turn | None = None,
    inbound: InboundMessage | None = None,
) -> Delivery:
    """Queue a text for one place, inside the transaction of the change that causes it.

    Where no process sends (web, API, command line) answers are read from PostgreSQL: those are `sent` at once.
    """
    stored = not has_sender(account)
    delivery = Delivery.objects.create(
        account=account,
        chat_id=chat_id,
        thread_id=thread_id,
        reply_to=reply_to,
        kind=kind,
        text=text,
        turn=turn,
        inbound=inbound,
        state=DeliveryState.SENT if stored else DeliveryState.PENDING,
        ended_at=clock.now() if stored else None,
    )
    journal.record(events.DELIVERY_QUEUED, by=by, subject=("delivery", delivery.pk), kind=kind, account=account)
    if not stored:
        live.hint(f"outbox:{platform_of(account)}", account=account)
    return delivery


def notify(turn: Turn, text: str, *, by: Actor) -> Delivery:
    """Tell the person something about their turn: it stands in the conversation, and goes to where they are."""
    Message.objects.create(conversation_id=turn.conversation_id, turn=turn, author=Author.SYSTEM, text=text)
    return deliver(**turn.route, kind=DeliveryKind.NOTICE, text=text, turn=turn, by=by)


# The oldest delivery of each chat that has none in flight; rows another sender looks at are passed over. Where a kill order holds a
# bot, only notices go out.
_CLAIM = f"""
WITH heads AS (
    SELECT DISTINCT ON (account, chat_id) id, state, not_before FROM conversations_delivery
    WHERE account = ANY(%s) AND state IN ('pending', 'sending')
        AND (kind = 'notice' OR NOT {governance_queries.STOPS_BOT.format(slug="split_part(account, ':', 2)")})
    ORDER BY account, chat_id, (state = 'sending') DESC, id
), due AS MATERIALIZED (
    SELECT d.id FROM conversations_delivery d JOIN heads h ON h.id = d.id
    WHERE d.state = 'pending' AND d.not_before <= statement_timestamp()
        AND COALESCE(d.asked_at, d.created_at) > statement_timestamp() - make_interval(secs => %s)
    ORDER BY d.id LIMIT %s FOR UPDATE OF d SKIP LOCKED
)
UPDATE conversations_delivery SET state = 'sending', attempts = attempts + 1, sending_since = statement_timestamp()
WHERE id IN (SELECT id FROM due) AND state = 'pending' RETURNING *
"""  # noqa: S608 - put together from constants


@transaction.atomic
def claim_deliveries(accounts: list[str], *, limit: int = 20, by: Actor | None = None) -> list[Delivery]:
    """Take up to `limit` due deliveries of these accounts for sending: oldest first, one in flight per chat.

    Each is `sending` afterwards; the caller must report delivered, failed or unknown for it. A sender that dies leaves it to the sweep.
    Where a kill order holds, only notices go out; answers wait until it is lifted. What is no longer fresh is left to the sweep.
    """
    claimed = Delivery.objects.raw(_CLAIM, [accounts, FRESH_FOR.total_seconds(), limit])
    deliveries = sorted(claimed, key=lambda delivery: delivery.pk)
    for delivery in deliveries:
        journal.record(
            events.DELIVERY_MOVED, by=by or Actor.system("outbox"), subject=("delivery", delivery.pk), to="sending"
        )
    return deliveries


@transaction.atomic
def delivery_receipt(*, delivery_id: int, receipt: str) -> None:
    """Keep the platform's receipt of one part, so that a later attempt goes on with the part that is missing."""
    delivery = Delivery.objects.select_for_update().get(pk=delivery_id)
    if receipt not in delivery.receipts:  # told twice when the first commit was not seen
        Delivery.objects.filter(pk=delivery_id).update(receipts=[*delivery.receipts, receipt])


def delivered(*, delivery_id: int, receipts: list[str], by: Actor) -> Delivery:
    """Close a delivery that the platform confirmed; `receipts` are the message ids of all its parts."""
    delivery = Delivery.objects.get(pk=delivery_id)
    return _end(delivery, DeliveryState.SENT, by=by, receipts=receipts)


def delivery_failed(
    *, delivery_id: int, sentence: str, permanent: bool, by: Actor, retry_after_seconds: float | None = None
) -> Delivery:
    """Note that the platform refused. Permanent: failed, or partial when parts had gone out. Else: pending again, later."""
    delivery = Delivery.objects.get(pk=delivery_id)
    if permanent:
        state = DeliveryState.PARTIAL if delivery.receipts else DeliveryState.FAILED
        return _end(delivery, state, by=by, sentence=sentence)
    wait = dt.timedelta(seconds=retry_after_seconds or min(2**delivery.attempts, 300))
    return move(
        delivery,
        DELIVERY,
        DeliveryState.PENDING,
        by=by,
        event=events.DELIVERY_MOVED,
        details={"sentence": sentence},
        sentence=sentence,
        not_before=clock.now() + wait,
        sending_since=None,
    )


def delivery_unknown(*, delivery_id: int, by: Actor) -> Delivery:
    """Note that the call began and no receipt came."""
    delivery = Delivery.objects.get(pk=delivery_id)
    return move(delivery, DELIVERY, DeliveryState.UNKNOWN, by=by, event=events.DELIVERY_MOVED)


def resend(*, delivery_id: int, by: Actor) -> Delivery:
    """Send a delivery in doubt once more, visibly marked as possibly repeated."""
    return _again(Delivery.objects.get(pk=delivery_id), by=by, doubtful=True)


@transaction.atomic
def send_anyway(*, delivery_id: int, by: Actor) -> Delivery:
    """Send what was withheld, refused or left in doubt, because a person asks for it; a new day begins in which it may be sent.

    What may have arrived before is marked as possibly repeated; of one that went out in part only the rest is sent.
    Raises StateConflict for one that is on its way or has arrived, Refused where nobody would send it.
    """
    delivery = Delivery.objects.get(pk=delivery_id)
    check_can_send_again(delivery)
    doubtful = delivery.doubtful or delivery.state == DeliveryState.UNKNOWN
    details = {"asked": True, "was": delivery.sentence}
    _again(delivery, by=by, doubtful=doubtful, details=details, asked_at=clock.db_now(), ended_at=None, sentence="")
    live.hint(f"outbox:{platform_of(delivery.account)}", account=delivery.account)
    return Delivery.objects.get(pk=delivery_id)


def _again(
    delivery: Delivery, *, by: Actor, doubtful: bool, details: dict[str, Any] | None = None, **fields: Any
) -> Delivery:
    return move(
        delivery,
        DELIVERY,
        DeliveryState.PENDING,
        by=by,
        event=events.DELIVERY_MOVED,
        details={"doubtful": doubtful, **(details or {})},
        doubtful=doubtful,
        sending_since=None,
        not_before=clock.now(),
        **fields,
    )


def _end(delivery: Delivery, state: DeliveryState, *, by: Actor, **fields: Any) -> Delivery:
    return move(
        delivery,
        DELIVERY,
        state,
        by=by,
        event=events.DELIVERY_MOVED,
        details={"attempts": delivery.attempts},
        ended_at=clock.now(),
        **fields,
    )


def settle_doubt(limit: int = 50) -> int:
    """Resolve what senders left behind: a call without receipt becomes unknown and is resent with a mark; what is stale is withheld.

    What waits for a platform that nobody sends to (any more) is stored, and with that delivered.
    """
    by = Actor.system("sweep")
    stuck = Delivery.objects.filter(state=DeliveryState.SENDING, sending_since__lt=clock.db_now(-SENDING_AT_MOST))
    doubtful = Delivery.objects.filter(state=DeliveryState.UNKNOWN)
    waiting = Delivery.objects.filter(state=DeliveryState.PENDING)
    # Where nobody registered, the gateways are not loaded: then nothing is known of who sends, and nothing may be called sent.
    sent_by_nobody = waiting.exclude(_account_has_sender()) if sending_platforms() else waiting.none()
    since = Coalesce("asked_at", "created_at")
    stale = waiting.alias(since=since).filter(_account_has_sender(), since__lt=clock.db_now(-FRESH_FOR))
    return (
        each(lambda row: delivery_unknown(delivery_id=row.pk, by=by), stuck[:limit], what="stuck_delivery")
        + each(lambda row: _settle_unknown(row, by), doubtful[:limit], what="doubtful_delivery")
        + each(lambda row: _end(row, DeliveryState.SENT, by=by), sent_by_nobody[:limit], what="stored_delivery")
        + each(lambda row: _withhold(row, by), stale[:limit], what="stale_delivery")
    )


_TOO_OLD = "Not sent: it was older than 24 hours when its gateway came back."


def _account_has_sender() -> Q:
    """Return the condition that a process sends to the delivery's account; it holds for no row while nobody registered one."""
    platforms = [Q(account__startswith=f"{platform}:") for platform in sending_platforms()]
    return reduce(or_, platforms, Q(pk__in=[]))


def _settle_unknown(delivery: Delivery, by: Actor) -> Delivery:
    """Resend a doubtful answer once; progress notes and second doubts are not worth a repetition."""
    if delivery.kind == DeliveryKind.PROGRESS or delivery.doubtful:
        return _end(delivery, DeliveryState.FAILED, by=by, sentence="No receipt came; it may or may not have arrived.")
    return resend(delivery_id=delivery.pk, by=by)


def _withhold(delivery: Delivery, by: Actor) -> Delivery:
    return _end(delivery, DeliveryState.SUPPRESSED, by=by, sentence=_TOO_OLD)
