"""One factory per model of budgets."""

from __future__ import annotations

import datetime as dt

import factory
from factory.django import DjangoModelFactory

from budgets.models import (
    Budget,
    BudgetAlert,
    BudgetWindow,
    Price,
    PriceVersion,
    Rate,
    Reservation,
    ReservationLeg,
    TokenLedger,
)
from budgets.states import Billing, LedgerKind, PriceBasis, Scope, Unit
from fleet.kernel import clock

CENT = 10_000_000
DAY = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)


class PriceVersionFactory(DjangoModelFactory[PriceVersion]):
    """A price list without prices."""

    class Meta:
        model = PriceVersion

    source = "test"
    sha256 = factory.Sequence(lambda number: f"{number:064x}")
    imported_by = "test"


class PriceFactory(DjangoModelFactory[Price]):
    """A model of a list, without rates."""

    class Meta:
        model = Price

    version = factory.SubFactory(PriceVersionFactory)
    provider = "test"
    model = factory.Sequence(lambda number: f"model-{number}")
    pattern = factory.LazyAttribute(lambda price: rf"^{price.model}\Z")
    basis = PriceBasis.PRICED


class RateFactory(DjangoModelFactory[Rate]):
    """A cent for a token of output."""

    class Meta:
        model = Rate

    price = factory.SubFactory(PriceFactory)
    unit = Unit.OUTPUT
    nano_usd = CENT


class BudgetFactory(DjangoModelFactory[Budget]):
    """A dollar a day for the whole fleet, hard."""

    class Meta:
        model = Budget

    name = factory.Sequence(lambda number: f"Budget {number}")
    scope_kind = Scope.FLEET
    limit_amount = 100 * CENT


class BudgetWindowFactory(DjangoModelFactory[BudgetWindow]):
    """One unused day."""

    class Meta:
        model = BudgetWindow

    budget = factory.SubFactory(BudgetFactory)
    starts_at = DAY
    ends_at = DAY + dt.timedelta(days=1)
    limit_amount = factory.SelfAttribute("budget.limit_amount")


class BudgetAlertFactory(DjangoModelFactory[BudgetAlert]):
    """Half of a window was used."""

    class Meta:
        model = BudgetAlert

    window = factory.SubFactory(BudgetWindowFactory)
    threshold = 50
    posted = 50 * CENT
    limit_amount = 100 * CENT


class ReservationFactory(DjangoModelFactory[Reservation]):
    """A reservation that holds nothing."""

    class Meta:
        model = Reservation

    attempt = factory.Sequence(lambda number: f"attempt-{number}")
    scopes = factory.LazyFunction(lambda: {"fleet": "*"})
    model = "penny"
    lease_until = factory.LazyFunction(lambda: clock.now() + dt.timedelta(minutes=5))


class ReservationLegFactory(DjangoModelFactory[ReservationLeg]):
    """A quarter of a dollar held."""

    class Meta:
        model = ReservationLeg

    reservation = factory.SubFactory(ReservationFactory)
    window = factory.SubFactory(BudgetWindowFactory)
    budget = factory.SelfAttribute("window.budget")
    granted = 25 * CENT
    held = 25 * CENT


class TokenLedgerFactory(DjangoModelFactory[TokenLedger]):
    """One token of output, for a cent."""

    class Meta:
        model = TokenLedger

    reservation = factory.SubFactory(ReservationFactory)
    execution_id = 1
    message_id = factory.Sequence(lambda number: f"message-{number}")
    unit = Unit.OUTPUT
    kind = LedgerKind.USAGE
    quantity = 1
    price = factory.SubFactory(PriceFactory)
    basis = PriceBasis.PRICED
    cost_nano_usd = CENT
    billed_nano_usd = CENT
    billing = Billing.API
    provider = "test"
    model = "penny"
    identity_slug = "ada"
    at = DAY
