"""The journal: every change of state leaves one row, and the rows are chained by hash.

Rows are inserted without any lock; one sealer links them afterwards, in the order of their transactions, once no older
transaction can still commit. A fork of the chain is impossible (`previous_hash` is unique), and `verify` finds every row that
was changed, taken out or put in between. What it cannot see is a tail cut off together with its seals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import rfc8785
from django.db import connection, transaction

from fleet.kernel import events
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry, JournalSeal

GENESIS = "0" * 64
_SEALER_LOCK = 0x466C656574  # "Fleet": one sealer at a time

# Every change of anything waits for this one. Written out it takes half the time the ORM needs to phrase it.
_INSERT = """
    INSERT INTO kernel_journalentry (event, actor_kind, actor_id, actor_name, subject_kind, subject_id, details)
    VALUES (%(event)s, %(actor_kind)s, %(actor_id)s, %(actor_name)s, %(subject_kind)s, %(subject_id)s, %(details)s)
    RETURNING id, at, transaction
"""


def record(event: str, *, by: Actor, subject: tuple[str, object], row: Any = None, **details: Any) -> JournalEntry:
    """Write the journal row of one change and publish it to subscribers, with the changed `row` itself, in the caller's transaction.

    `event` is `<app>.<noun>.<past verb>`, `subject` is (kind, id), `details` must be plain JSON without secrets; whole numbers
    beyond 2^53 have no canonical form and raise rfc8785.CanonicalizationError.
    """
    rfc8785.dumps(details)  # now, while the caller can be told: an entry that cannot be sealed would block the chain
    kind, identifier = subject
    facts = {
        "event": event,
        "actor_kind": by.kind,
        "actor_id": by.id,
        "actor_name": by.name,
        "subject_kind": kind,
        "subject_id": str(identifier),
    }
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, {**facts, "details": json.dumps(details)})
        number, at, transaction_id = cursor.fetchone()
    events.publish(events.Event(event, by, kind, str(identifier), details, row))
    return JournalEntry(pk=number, at=at, transaction=transaction_id, details=details, **facts)


def digest(entry: JournalEntry, previous_hash: str) -> str:
    """Return the SHA-256 (hex) over the previous hash and the entry's canonical JSON (RFC 8785)."""
    body = {
        "id": str(entry.pk),
        "at": entry.at.isoformat(timespec="microseconds"),
        "event": entry.event,
        "actor": [entry.actor_kind, entry.actor_id, entry.actor_name],
        "subject": [entry.subject_kind, entry.subject_id],
        "details": entry.details,
    }
    return hashlib.sha256(previous_hash.encode() + rfc8785.dumps(body)).hexdigest()


@transaction.atomic
def seal(limit: int = 1000) -> int:
    """Chain the settled entries that are not sealed yet; return how many. Does nothing while another sealer works."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_SEALER_LOCK])
        if not cursor.fetchone()[0]:
            return 0
    last = JournalSeal.objects.order_by("-pk").first()
    previous = last.hash if last else GENESIS
    seals = []
    for entry in _settled_after(last, limit):
        current = digest(entry, previous)
        seals.append(
            JournalSeal(entry_id=entry.pk, transaction=entry.transaction, previous_hash=previous, hash=current)
        )
        previous = current
    JournalSeal.objects.bulk_create(seals)
    return len(seals)


def _settled_after(last: JournalSeal | None, limit: int) -> list[JournalEntry]:
    """Return entries after the last seal whose transactions, and all older ones, have ended."""
    after = (last.transaction, last.entry_id) if last else (0, 0)
    return list(
        JournalEntry.objects.raw(
            "SELECT * FROM kernel_journalentry WHERE (transaction, id) > (%s, %s)"
            " AND transaction < txid_snapshot_xmin(txid_current_snapshot())"
            " ORDER BY transaction, id LIMIT %s",
            [*after, limit],
        )
    )


@dataclass(frozen=True, slots=True)
class ChainFault:
    """A place where the chain does not hold: the seal's position, the entry and a sentence."""

    position: int
    entry_id: int
    sentence: str


def verify() -> Iterator[ChainFault]:
    """Yield every fault of the chain, in order; nothing when the journal is whole."""
    previous, position = GENESIS, 0
    while links := list(JournalSeal.objects.filter(pk__gt=position).order_by("pk")[:1000]):
        entries = JournalEntry.objects.in_bulk([link.entry_id for link in links])
        for link in links:
            yield from _faults(link, entries.get(link.entry_id), previous)
            previous, position = link.hash, link.pk
    yield from _put_in_between(position)


def _faults(link: JournalSeal, entry: JournalEntry | None, previous: str) -> Iterator[ChainFault]:
    if entry is None:
        yield ChainFault(link.pk, link.entry_id, "The sealed entry is gone.")
    elif digest(entry, link.previous_hash) != link.hash:
        yield ChainFault(link.pk, link.entry_id, "The entry is not what was sealed.")
    if link.previous_hash != previous:
        yield ChainFault(link.pk, link.entry_id, "The seal does not continue the one before it.")


def _put_in_between(position: int) -> Iterator[ChainFault]:
    """Yield entries without a seal that pretend to be older than the last sealed one."""
    slipped = JournalEntry.objects.raw(
        "SELECT entry.id FROM kernel_journalentry AS entry, kernel_journalseal AS last"
        " WHERE last.id = %s AND (entry.transaction, entry.id) < (last.transaction, last.entry_id)"
        " AND NOT EXISTS (SELECT 1 FROM kernel_journalseal AS seal WHERE seal.entry_id = entry.id) ORDER BY entry.id",
        [position],
    )
    for entry in slipped:
        yield ChainFault(position, entry.pk, "The entry was put in behind entries that were sealed already.")
