"""Prices are the catalogue's own, kept as immutable versions; what is not known is refused."""

import datetime as dt
from decimal import Decimal

import genai_prices
import pytest
from django.db import DatabaseError, transaction
from django.db.models import F
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets import actions, queries
from budgets.actions.pricing import CATALOGUES
from budgets.models import Price, PriceVersion, Rate
from budgets.ports import UsageUnits
from budgets.queries.prices import Catalogue, current_catalogue
from budgets.states import PRICED_UNITS, PriceBasis
from fleet.kernel.models import JournalEntry
from tests.budgets import scenes
from tests.factories.budgets import PriceFactory, PriceVersionFactory, RateFactory

TODAY = dt.date(2026, 11, 22)
MODELS = [
    (provider.id, model)
    for provider in get_snapshot().providers
    if provider.id in CATALOGUES
    for model in provider.models
]
NAMED = [(provider, model) for provider, model in MODELS if model.is_match(model.id)]  # not all go by their own id
TOKENS = st.one_of(st.just(0), st.integers(0, 2_000), st.integers(90_000, 300_000))
DAYS = st.dates(dt.date(2026, 1, 1), dt.date(2027, 12, 31))


@pytest.fixture(scope="module")
def imported(django_db_setup, django_db_blocker) -> Catalogue:
    """The installed catalogue, imported once for this module and undone afterwards."""
    with django_db_blocker.unblock(), transaction.atomic():
        actions.import_prices(by=scenes.BY)
        prices = current_catalogue()
        transaction.set_rollback(True)
    return prices


@settings(deadline=None, max_examples=500)
@given(data=st.data(), day=DAYS)
def test_a_message_costs_what_the_catalogue_computes(imported, data, day):
    provider, known = data.draw(st.sampled_from(NAMED), label="model")
    model = known.id
    price = imported.find(model)
    units = {unit.value: data.draw(TOKENS, label=unit) for unit in PRICED_UNITS}
    units["web_searches"] = data.draw(st.integers(0, 20)) if _searches(price, day) else 0
    costs = price.cost(units, on=day)
    expected = genai_prices.calc_price(
        Usage(
            input_tokens=units["input_uncached"]
            + units["cache_read"]
            + units["cache_write_5m"]
            + units["cache_write_1h"],
            cache_read_tokens=units["cache_read"],
            cache_write_tokens=units["cache_write_5m"] + units["cache_write_1h"],
            cache_write_5m_tokens=units["cache_write_5m"],
            cache_write_1h_tokens=units["cache_write_1h"],
            output_tokens=units["output"],
            web_searches=units["web_searches"],
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=dt.datetime.combine(day, dt.time(12), tzinfo=dt.UTC),
    )
    assert sum(costs.values()) == expected.total_price * Decimal(10**9)


def _searches(price, day) -> bool:
    return price.cost({"web_searches": 1}, on=day) is not None


def test_every_model_of_the_catalogue_is_priced(imported):
    assert {model.id for _, model in MODELS} <= {price.model for price in imported.prices}


@pytest.mark.parametrize(
    "name",
    [
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "Claude-Haiku-4-5",
        "claude-sonnet-5",
        "claude-sonnet-5-5",
        "claude-opus-5",
        "claude-opus-5-5",
        "claude-fable-5-1",
    ],
)
def test_a_name_leads_to_the_model_the_catalogue_means(imported, name):
    _, expected = get_snapshot().find_provider_model(name, None, "anthropic", None)
    assert imported.find(name).model == expected.id


@pytest.mark.parametrize("name", ["gpt-5.6-luna", "GPT-5.6-Luna", "gpt-5.5", "gpt-5.5-codex", "o3"])
def test_codex_models_lead_to_the_price_of_openai(imported, name):
    _, expected = get_snapshot().find_provider_model(name.lower(), None, "openai", None)
    assert imported.find(name).model == expected.id


def test_the_model_that_codex_falls_back_to_has_a_price(imported, settings):
    assert imported.find(settings.FLEET_CODEX_MODEL).basis == PriceBasis.PRICED


def test_the_catalogue_keeps_its_own_ratio_for_cached_input(imported):
    rates = {name: imported.find(name).cost({"cache_read": 1_000, "input_uncached": 1_000}, on=TODAY) for name in
             ("claude-haiku-4-5", "claude-opus-5-5", "claude-fable-5-1")}  # fmt: skip
    ratios = {name: Decimal(cost["cache_read"]) / cost["input_uncached"] for name, cost in rates.items()}
    assert list(ratios.values()) == [Decimal("0.1"), Decimal("0.05"), Decimal("0.025")]


def test_an_hours_cache_costs_more_than_five_minutes(imported):
    costs = imported.find("claude-haiku-4-5").cost({"cache_write_5m": 1_000_000, "cache_write_1h": 1_000_000}, on=TODAY)
    assert costs == {"cache_write_5m": 1_250_000_000, "cache_write_1h": 2_000_000_000}


def test_the_mock_model_is_free_because_somebody_said_so(imported):
    price = imported.find("mock-1")
    assert price.basis == PriceBasis.FREE
    assert sum(price.cost(dict.fromkeys(PRICED_UNITS, 1_000), on=TODAY).values()) == 0


def test_an_unknown_model_has_no_price(imported):
    assert imported.find("gpt-oracle-9") is None
    assert imported.find("not-claude-haiku-4-5") is None


def test_the_units_of_a_report_are_the_units_that_have_a_price():
    assert set(UsageUnits("m1", "penny").units()) == {unit.value for unit in PRICED_UNITS}


@pytest.mark.django_db
def test_importing_again_changes_nothing():
    first = actions.import_prices(by=scenes.BY)
    assert actions.import_prices(by=scenes.BY) == first
    assert JournalEntry.objects.filter(event="budgets.prices.imported").count() == 1


@pytest.mark.django_db
def test_another_catalogue_is_another_version_and_leaves_the_old_one_alone(prices):
    before = list(Rate.objects.values_list("price__version", "unit", "nano_usd"))
    newer = actions.import_prices(by=scenes.BY)
    assert PriceVersion.objects.latest("pk") == newer
    assert not queries.is_priced("penny")
    assert queries.is_priced("claude-haiku-4-5")
    assert list(Rate.objects.exclude(price__version=newer).values_list("price__version", "unit", "nano_usd")) == before


@pytest.mark.django_db
def test_without_any_import_nothing_is_priced():
    assert not queries.is_priced("claude-haiku-4-5")


@pytest.mark.django_db
@pytest.mark.parametrize("model", [PriceVersion, Price, Rate])
def test_a_stored_price_can_neither_change_nor_vanish(prices, model):
    for change in (lambda rows: rows.update(id=F("id")), lambda rows: rows._raw_delete(using="default")):
        with pytest.raises(DatabaseError, match="Cannot"), transaction.atomic():
            change(model.objects.all())


@pytest.mark.django_db
def test_a_step_applies_to_the_whole_message_once_its_input_is_above_it():
    price = PriceFactory(version=PriceVersionFactory(), model="stepped")
    RateFactory(price=price, unit="input_uncached", nano_usd=1)
    RateFactory(price=price, unit="input_uncached", nano_usd=2, over_input_tokens=100)
    stepped = queries.price_of("stepped")
    assert stepped.cost({"input_uncached": 100}, on=TODAY) == {"input_uncached": 100}
    assert stepped.cost({"input_uncached": 101}, on=TODAY) == {"input_uncached": 202}


@pytest.mark.django_db
def test_a_rate_counts_from_its_day_on():
    price = PriceFactory(model="promoted")
    RateFactory(price=price, nano_usd=1)
    RateFactory(price=price, nano_usd=3, effective_from=dt.date(2026, 12, 1))
    promoted = queries.price_of("promoted")
    assert promoted.cost({"output": 1}, on=dt.date(2026, 11, 30)) == {"output": 1}
    assert promoted.cost({"output": 1}, on=dt.date(2026, 12, 1)) == {"output": 3}
