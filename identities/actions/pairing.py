"""Pairing: a signed-in person proves, with a one-time code, that a chat account is theirs."""

from __future__ import annotations

import datetime as dt
import secrets

from django.db import connection, transaction

from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import NotFound, Refused, StateConflict
from identities import events, queries
from identities.models import ChatAccount, PairingAttempt, PairingCode, Person

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # nothing that looks like something else
CODE_LENGTH = 8
CODE_LIVES = dt.timedelta(hours=1)
PENDING_AT_MOST = 3
WRONG_AT_MOST = 5
WRONG_WITHIN = dt.timedelta(hours=1)


@transaction.atomic
def issue_pairing_code(*, person: Person, by: Actor) -> tuple[str, dt.datetime]:
    """Return a new one-time code and when it expires. At most three wait at a time; only a hash is kept."""
    Person.objects.select_for_update(no_key=True).get(pk=person.pk)
    pending = list(queries.pending_codes(person))
    if len(pending) >= PENDING_AT_MOST:
        raise Refused(
            "No further pairing code.",
            why=f"{PENDING_AT_MOST} codes are waiting to be used already.",
            next_step=f"Use one of them, or wait until {pending[0].expires_at:%H:%M} UTC, when the oldest expires.",
            code="too_many_codes",
        )
    code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
    row = PairingCode.objects.create(
        person=person, code_hash=PairingCode.hash_of(code), expires_at=clock.now() + CODE_LIVES
    )
    journal.record(events.CODE_ISSUED, by=by, subject=("person", person.pk), code=row.pk)
    return code, row.expires_at


def pair(*, platform: str, external_id: str, code: str, by: Actor) -> Person:
    """Link a chat account with the person who made `code`, and use the code up.

    Refused for a code that is wrong, used, expired or of a switched-off person (which of these is not told), and for an account
    that was wrong five times within an hour. StateConflict when the account belongs to somebody else. A wrong try stays counted.
    """
    with transaction.atomic():
        person = _redeem(platform, external_id, code, by)
    if person is None:
        raise Refused(
            "This pairing code does not work.",
            why="It is mistyped, was used before, or is older than an hour.",
            next_step="Make a new one in the console under Account and send it as: /pair CODE",
            code="wrong_code",
        )
    return person


def _redeem(platform: str, external_id: str, code: str, by: Actor) -> Person | None:
    _one_at_a_time(platform, external_id)
    _check_tries_left(platform, external_id)
    row = (
        PairingCode.objects.select_for_update(of=("self",), no_key=True)
        .select_related("person")
        .filter(code_hash=PairingCode.hash_of(code), used_at=None)
        .filter(expires_at__gt=clock.now(), person__is_active=True)
        .first()
    )
    if row is None:
        PairingAttempt.objects.create(platform=platform, external_id=external_id, at=clock.now())
        journal.record(events.PAIRING_FAILED, by=by, subject=_subject(platform, external_id))
        return None
    _check_free_for(row.person, platform, external_id)
    PairingCode.objects.filter(pk=row.pk).update(used_at=clock.now())
    account, _ = ChatAccount.objects.get_or_create(
        platform=platform, external_id=external_id, defaults={"person": row.person}
    )
    journal.record(
        events.PAIRED, by=by, subject=_subject(platform, external_id), account=account.pk, person=row.person.pk
    )
    return row.person


def _subject(platform: str, external_id: str) -> tuple[str, str]:
    return "chat_account", f"{platform}:{external_id}"[:80]


def _one_at_a_time(platform: str, external_id: str) -> None:
    """Let the tries of one account pass one after the other, so that a burst cannot outrun the count."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"pair:{platform}:{external_id}"])


def _check_tries_left(platform: str, external_id: str) -> None:
    tries = PairingAttempt.objects.filter(platform=platform, external_id=external_id)
    recent = tries.filter(at__gt=clock.now() - WRONG_WITHIN)
    if recent.count() >= WRONG_AT_MOST:
        raise Refused(
            "No more pairing tries for now.",
            why=f"This account sent {WRONG_AT_MOST} wrong codes within an hour.",
            next_step="Wait an hour, then make a new code in the console under Account.",
            code="too_many_tries",
        )
    tries.filter(at__lte=clock.now() - WRONG_WITHIN).delete()


def _check_free_for(person: Person, platform: str, external_id: str) -> None:
    taken = ChatAccount.objects.filter(platform=platform, external_id=external_id).exclude(person=person)
    if taken.exists():
        raise StateConflict(
            "This chat account is paired already.",
            why="It belongs to another person of this company.",
            next_step="That person, or an administrator, has to unpair it first.",
            code="account_taken",
        )


@transaction.atomic
def unpair(*, platform: str, external_id: str, by: Actor) -> None:
    """Forget whose chat account this is; what it sends from now on is refused. NotFound when it is not paired."""
    deleted, _ = ChatAccount.objects.filter(platform=platform, external_id=external_id).delete()
    if not deleted:
        raise NotFound("This chat account is not paired.", next_step="Nothing has to be done.")
    journal.record(events.UNPAIRED, by=by, subject=_subject(platform, external_id))
