"""One factory per model of identities."""

from __future__ import annotations

import datetime as dt

import factory
from factory.django import DjangoModelFactory

from fleet.kernel import clock
from identities.models import (
    AccessToken,
    ChatAccount,
    Identity,
    PairingCode,
    Person,
    SignInLink,
    TextPointer,
    TextVersion,
    ToolGrant,
)
from identities.permissions import Role
from identities.states import IdentityState, TextKind, ToolDecision


class PersonFactory(DjangoModelFactory[Person]):
    """An operator who signs in by link."""

    class Meta:
        model = Person

    username = factory.Sequence(lambda number: f"person-{number}")
    roles = [Role.OPERATOR]
    password = "!"


class IdentityFactory(DjangoModelFactory[Identity]):
    """An active bot."""

    class Meta:
        model = Identity

    slug = factory.Sequence(lambda number: f"bot-{number}")
    name = factory.LazyAttribute(lambda bot: bot.slug.title())
    title = "Clerk"
    department = "Office"
    state = IdentityState.ACTIVE


class TextVersionFactory(DjangoModelFactory[TextVersion]):
    """A wording of a soul, not yet live."""

    class Meta:
        model = TextVersion

    identity = factory.SubFactory(IdentityFactory)
    kind = TextKind.SOUL
    name = "soul"
    content = factory.Sequence(lambda number: f"You are wording {number}.\n")
    sha256 = factory.LazyAttribute(lambda version: TextVersion.hash_of(version.content))
    author = "test"


class TextPointerFactory(DjangoModelFactory[TextPointer]):
    """A live soul."""

    class Meta:
        model = TextPointer

    live = factory.SubFactory(TextVersionFactory)
    identity = factory.SelfAttribute("live.identity")
    kind = factory.SelfAttribute("live.kind")
    name = factory.SelfAttribute("live.name")


class ToolGrantFactory(DjangoModelFactory[ToolGrant]):
    """The right to read files."""

    class Meta:
        model = ToolGrant

    identity = factory.SubFactory(IdentityFactory)
    pattern = "Read"
    decision = ToolDecision.ALLOW


class ChatAccountFactory(DjangoModelFactory[ChatAccount]):
    """A paired Telegram account."""

    class Meta:
        model = ChatAccount

    platform = "telegram"
    external_id = factory.Sequence(lambda number: str(1000 + number))
    person = factory.SubFactory(PersonFactory)


class PairingCodeFactory(DjangoModelFactory[PairingCode]):
    """A code that can still be used; `code` is its text."""

    class Meta:
        model = PairingCode

    class Params:
        code = factory.Sequence(lambda number: f"CODE{number:04d}")

    person = factory.SubFactory(PersonFactory)
    code_hash = factory.LazyAttribute(lambda row: PairingCode.hash_of(row.code))
    expires_at = factory.LazyFunction(lambda: clock.now() + dt.timedelta(hours=1))


class AccessTokenFactory(DjangoModelFactory[AccessToken]):
    """A personal token; `text` is its text."""

    class Meta:
        model = AccessToken

    class Params:
        text = factory.Sequence(lambda number: f"flt_test-{number}")

    person = factory.SubFactory(PersonFactory)
    name = "script"
    prefix = factory.LazyAttribute(lambda row: row.text[:10])
    token_hash = factory.LazyAttribute(lambda row: AccessToken.hash_of(row.text))


class SignInLinkFactory(DjangoModelFactory[SignInLink]):
    """A link that can still be used; `token` is its text."""

    class Meta:
        model = SignInLink

    class Params:
        token = factory.Sequence(lambda number: f"token-{number}")

    person = factory.SubFactory(PersonFactory)
    token_hash = factory.LazyAttribute(lambda row: SignInLink.hash_of(row.token))
    expires_at = factory.LazyFunction(lambda: clock.now() + dt.timedelta(minutes=15))
