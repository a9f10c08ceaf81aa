"""Django admin: budgets change through their actions, everything else is there to be read."""

import pytest
from django.apps import apps
from django.contrib import admin
from django.urls import reverse

from budgets.models import Budget
from fleet.kernel.models import JournalEntry
from identities.permissions import Role
from tests.budgets.scenes import bot_budget, fleet_budget, price_list, reserve, use, window
from tests.factories.budgets import CENT
from tests.factories.identities import PersonFactory

pytestmark = pytest.mark.django_db
FORM = {
    "name": "Monthly", "scope_kind": "fleet", "scope_id": "*", "metric": "imputed", "limit_amount": 5, "mode": "hard",
    "period": "month", "anchor": 1, "hours": 0, "timezone": "UTC", "thresholds": "50,80", "active": "on",
}  # fmt: skip


@pytest.fixture
def boss(client):
    """Somebody who may change budgets."""
    person = PersonFactory(username="boss", roles=[Role.ADMIN])
    client.force_login(person)
    return client


def url(model: str, page: str, *arguments: object) -> str:
    return reverse(f"admin:budgets_{model}_{page}", args=arguments)


def test_every_model_can_be_looked_at(boss):
    price_list()
    fleet_budget(), bot_budget(cents=10)
    use(reserve(), 10)
    for model in apps.get_app_config("budgets").get_models():
        rows = model.objects.all()
        assert rows.exists()
        assert boss.get(url(model._meta.model_name, "changelist")).status_code == 200
        assert boss.get(url(model._meta.model_name, "change", rows[0].pk)).status_code == 200


def test_only_budgets_can_be_written():
    written = {
        model.__name__
        for model in apps.get_app_config("budgets").get_models()
        if not admin.site.get_model_admin(model).read_only
    }
    assert written == {"Budget"}


def test_a_new_budget_is_journaled_under_the_persons_name(boss):
    assert boss.post(url("budget", "add"), FORM).status_code == 302
    assert Budget.objects.get().thresholds == [50, 80]
    assert JournalEntry.objects.get(event="budgets.budget.created").actor_name == "boss"


def test_a_new_limit_reaches_the_open_window(boss):
    price_list()
    budget = fleet_budget(cents=100)
    reserve()
    fields = {name: FORM[name] for name in ("mode", "anchor", "hours", "timezone", "active")}
    form = fields | {"name": budget.name, "limit_amount": 200 * CENT, "thresholds": "50"}
    assert boss.post(url("budget", "change", budget.pk), form).status_code == 302
    assert window(budget).limit_amount == 200 * CENT
    assert JournalEntry.objects.get(event="budgets.budget.changed").actor_name == "boss"


def test_a_budget_that_cannot_be_is_a_form_error(boss):
    answer = boss.post(url("budget", "add"), FORM | {"timezone": "Mars/Olympus"})
    assert "There is no timezone" in answer.content.decode()
    assert not Budget.objects.exists()


def test_nobody_removes_a_budget(boss):
    assert boss.post(url("budget", "delete", fleet_budget().pk), {"post": "yes"}).status_code == 403


def test_without_the_right_to_change_budgets_nobody_does(client):
    client.force_login(PersonFactory(roles=[Role.OPERATOR]))
    assert client.post(url("budget", "add"), FORM).status_code == 403
