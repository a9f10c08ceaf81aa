"""Finding people: by name, by chat account, by token, by link."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from fleet.kernel import clock
from fleet.kernel.exceptions import NotFound
from identities.models import AccessToken, PairingCode, Person, SignInLink
from identities.permissions import Role


def get_person(username: str) -> Person:
    """Return the person with this sign-in name; NotFound with a sentence otherwise."""
    person = Person.objects.filter(username=username).first()
    if person is None:
        raise NotFound(
            f"There is nobody called {username[:80]}.",
            next_step="Create the person with ./manage.py create_person, or check the spelling.",
        )
    return person


def first_admin() -> Person | None:
    """Return the administrator who was here first, or None."""
    return Person.objects.filter(is_active=True, roles__contains=[Role.ADMIN]).order_by("pk").first()


def find_person(platform: str, external_id: str) -> Person | None:
    """Return the person a chat account is paired with, or None. The account is known by its id, never by a name."""
    return Person.objects.filter(chat_accounts__platform=platform, chat_accounts__external_id=external_id).first()


def find_access_token(text: str) -> AccessToken | None:
    """Return the token with its person, or None when it is wrong, revoked, expired or its person is switched off.

    Always one hash and one query, whatever is wrong: the answer's time tells nothing about a token.
    """
    return (
        AccessToken.objects.select_related("person")
        .filter(Q(expires_at=None) | Q(expires_at__gt=clock.now()))
        .filter(token_hash=AccessToken.hash_of(text), revoked_at=None, person__is_active=True)
        .first()
    )


def find_sign_in_link(token: str) -> SignInLink | None:
    """Return the link with its person while it can still be used, or None."""
    return (
        SignInLink.objects.select_related("person")
        .filter(token_hash=SignInLink.hash_of(token), used_at=None, expires_at__gt=clock.now(), person__is_active=True)
        .first()
    )


def pending_codes(person: Person) -> QuerySet[PairingCode]:
    """Return the person's codes that could still be used, the oldest first."""
    return PairingCode.objects.filter(person=person, used_at=None, expires_at__gt=clock.now()).order_by("expires_at")
