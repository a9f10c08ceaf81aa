"""Access tokens of the API: shown once, kept as a hash, revoked for good."""

from __future__ import annotations

import datetime as dt
import secrets

from django.db import transaction
from django.db.models import Q

from fleet.kernel import clock, journal, masking
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, StateConflict
from identities import events
from identities.models import AccessToken, Person

USE_IS_NOTED_EVERY = dt.timedelta(minutes=1)


@transaction.atomic
def issue_access_token(
    *,
    person: Person,
    name: str,
    by: Actor,
    gateway: bool = False,
    gateway_account: str = "",
    expires_at: dt.datetime | None = None,
) -> tuple[str, AccessToken]:
    """Return the token's text, which nobody sees again, and its row.

    A gateway's token speaks for the paired senders of `gateway_account` (such as `webhook:ada`) and for nobody else.
    """
    if not name.strip():
        raise Invalid("A token needs a name.", next_step="Say what it is for, such as `backup script`.")
    if gateway != bool(gateway_account):
        raise Invalid(
            "A gateway's token names its account, and no other token does.",
            next_step="Give both, --gateway and the account, or neither.",
        )
    text = f"flt_{secrets.token_urlsafe(32)}"
    masking.register(text)
    token = AccessToken.objects.create(
        person=person,
        name=name.strip()[:80],
        prefix=text[:10],
        token_hash=AccessToken.hash_of(text),
        gateway=gateway,
        gateway_account=gateway_account,
        expires_at=expires_at,
    )
    journal.record(
        events.TOKEN_ISSUED,
        by=by,
        subject=("access_token", token.pk),
        person=person.pk,
        name=token.name,
        gateway=gateway,
    )
    return text, token


@transaction.atomic
def revoke_access_token(*, token: AccessToken, by: Actor) -> AccessToken:
    """End a token for good; StateConflict when it was revoked before."""
    revoked_at = clock.now()
    if AccessToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=revoked_at) != 1:
        raise StateConflict("This token was revoked already.", next_step="Nothing has to be done.")
    token.revoked_at = revoked_at
    journal.record(events.TOKEN_REVOKED, by=by, subject=("access_token", token.pk), person=token.person_id)
    return token


def note_token_used(*, token: AccessToken) -> None:
    """Remember that the token was used just now, to the minute. A note, not a change of state: the journal stays quiet."""
    at = clock.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=at - USE_IS_NOTED_EVERY)
    AccessToken.objects.filter(stale, pk=token.pk).update(last_used_at=at)
