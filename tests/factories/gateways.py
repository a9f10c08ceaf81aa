"""One factory per model of gateways."""

from __future__ import annotations

import datetime as dt

import factory
from factory.django import DjangoModelFactory

from fleet.kernel import clock
from gateways.models import GatewayAccount, GatewayProcess, TokenLease, hash_of
from gateways.states import Platform
from tests.factories.identities import IdentityFactory


class GatewayAccountFactory(DjangoModelFactory[GatewayAccount]):
    """A Telegram account with a token, being served."""

    class Meta:
        model = GatewayAccount

    identity = factory.SubFactory(IdentityFactory)
    platform = Platform.TELEGRAM
    key = factory.LazyAttribute(lambda account: f"{account.platform}:{account.identity.slug}")
    token_hash = factory.Sequence(lambda number: hash_of(f"{number}:token"))


class GatewayProcessFactory(DjangoModelFactory[GatewayProcess]):
    """A gateway process on another machine, of which nothing can be proved here."""

    class Meta:
        model = GatewayProcess

    host = "elsewhere"
    boot_id = "8c9c5a6e-6d3f-4a7e-9c1d-0b8b9f1f2a3b"
    pid = factory.Sequence(lambda number: 4000 + number)
    pid_started_at = 1795377600.0


class TokenLeaseFactory(DjangoModelFactory[TokenLease]):
    """A lease that runs for another while."""

    class Meta:
        model = TokenLease

    token_hash = factory.Sequence(lambda number: hash_of(f"{number}:token"))
    holder = factory.SubFactory(GatewayProcessFactory)
    until = factory.LazyFunction(lambda: clock.now() + dt.timedelta(seconds=45))
