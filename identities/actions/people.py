"""People: creating them, changing their roles, and their one-time sign-in links."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.db import transaction

from fleet.kernel import clock, journal, masking
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, Refused, StateConflict
from identities import events, queries
from identities.models import Person, SignInLink
from identities.permissions import Role

FIRST_PERSON = "operator"
LINK_LIVES = dt.timedelta(minutes=15)


@transaction.atomic
def create_person(*, username: str, roles: Iterable[Role], by: Actor, email: str = "") -> Person:
    """Create a person without a password: they sign in by a one-time link and set one themselves. Invalid for a bad name."""
    person = Person(username=username, email=email, roles=[Role(role) for role in roles])
    person.set_unusable_password()
    try:
        person.full_clean(exclude=["password"])
    except ValidationError as error:
        raise Invalid(
            f"{username[:80]!r} cannot be created.",
            why=" ".join(error.messages),
            next_step="Choose another name, or check the roles.",
        ) from error
    person.save()
    journal.record(
        events.PERSON_CREATED, by=by, subject=("person", person.pk), username=username, roles=list(person.roles)
    )
    return person


@transaction.atomic
def ensure_first_person(*, by: Actor) -> Person:
    """Return the first administrator; create `operator` when there is nobody at all."""
    person = queries.first_admin()
    if person is None and not Person.objects.exists():
        person = create_person(username=FIRST_PERSON, roles=[Role.ADMIN], by=by)
    if person is None:
        raise StateConflict(
            "There are people, but no administrator.",
            next_step="Make one with ./manage.py create_person <name> --role admin.",
        )
    return person


@transaction.atomic
def set_roles(*, person: Person, roles: Iterable[Role], by: Actor) -> Person:
    """Replace a person's roles. The last administrator stays one: Refused."""
    wanted = [Role(role) for role in roles]
    if Role.ADMIN not in wanted:
        _check_not_last_admin(person)
    before = Person.objects.select_for_update(no_key=True).get(pk=person.pk).roles
    Person.objects.filter(pk=person.pk).update(roles=wanted)
    journal.record(events.PERSON_CHANGED, by=by, subject=("person", person.pk), before=list(before), roles=wanted)
    person.roles = wanted
    return person


@transaction.atomic
def set_active(*, person: Person, active: bool, by: Actor) -> Person:
    """Switch a person's account on or off; off ends every right at once. The last administrator stays on: Refused."""
    if not active:
        _check_not_last_admin(person)
    Person.objects.filter(pk=person.pk).update(is_active=active)
    journal.record(events.PERSON_CHANGED, by=by, subject=("person", person.pk), active=active)
    person.is_active = active
    return person


def _check_not_last_admin(person: Person) -> None:
    """Lock every administrator, so that two of them cannot remove each other at the same time."""
    admins = Person.objects.select_for_update(no_key=True).filter(is_active=True, roles__contains=[Role.ADMIN])
    if [admin.pk for admin in admins.order_by("pk")] == [person.pk]:
        raise Refused(
            f"{person.get_username()} stays an administrator.",
            why="Nobody else is one, and a house without an administrator cannot be opened again.",
            next_step="Make somebody else an administrator first.",
            code="last_admin",
        )


@transaction.atomic
def issue_sign_in_link(*, person: Person, by: Actor) -> str:
    """Return the token of a link that signs this person in once, within 15 minutes. Only its hash is kept."""
    if not person.is_active:
        raise Refused(
            f"{person.get_username()} gets no sign-in link.",
            why="The account is switched off.",
            next_step="Switch it on first.",
            code="account_off",
        )
    token = secrets.token_urlsafe(32)
    masking.register(token)
    link = SignInLink.objects.create(
        person=person, token_hash=SignInLink.hash_of(token), expires_at=clock.now() + LINK_LIVES
    )
    journal.record(events.LINK_ISSUED, by=by, subject=("person", person.pk), link=link.pk)
    return token


@transaction.atomic
def use_sign_in_link(*, token: str) -> Person:
    """Use a link up and return its person; Refused when it is wrong, used, too old, or its person is switched off."""
    link = queries.find_sign_in_link(token)
    if link is None or SignInLink.objects.filter(pk=link.pk, used_at=None).update(used_at=clock.now()) != 1:
        raise Refused(
            "This sign-in link does not open.",
            why="It was used before, is older than 15 minutes, or is not complete.",
            next_step="Make a new one with ./manage.py signin_link.",
            code="link_spent",
        )
    by = Actor.person(link.person)
    journal.record(events.PERSON_SIGNED_IN, by=by, subject=("person", link.person.pk), how="link", link=link.pk)
    return link.person
