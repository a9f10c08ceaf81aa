"""Django admin: accounts are looked at, and switched by those who may."""

from __future__ import annotations

import pytest
from django.urls import reverse

from gateways.states import AccountState
from tests.factories.gateways import GatewayAccountFactory, GatewayProcessFactory, TokenLeaseFactory
from tests.factories.identities import PersonFactory

pytestmark = pytest.mark.django_db
LIST = "admin:gateways_gatewayaccount_changelist"


@pytest.fixture
def admin(client):
    client.force_login(PersonFactory(roles=["admin"]))
    return client


def act(client, account, action):
    return client.post(reverse(LIST), {"action": action, "_selected_action": [account.pk]}, follow=True)


@pytest.mark.parametrize("model", ["gatewayaccount", "gatewayprocess", "tokenlease"])
def test_every_list_and_row_can_be_looked_at(admin, model):
    row = {
        "gatewayaccount": GatewayAccountFactory,
        "gatewayprocess": GatewayProcessFactory,
        "tokenlease": TokenLeaseFactory,
    }[model]()
    assert admin.get(reverse(f"admin:gateways_{model}_changelist")).status_code == 200
    assert admin.get(reverse(f"admin:gateways_{model}_change", args=[row.pk])).status_code == 200


def test_no_page_shows_a_token_or_its_hash(admin):
    account = GatewayAccountFactory()
    page = admin.get(reverse("admin:gateways_gatewayaccount_change", args=[account.pk])).content.decode()
    assert account.token_hash not in page


def test_an_account_is_switched_off_and_on(admin):
    account = GatewayAccountFactory()
    act(admin, account, "switch_off")
    account.refresh_from_db()
    assert account.state == AccountState.OFF
    act(admin, account, "serve_again")
    account.refresh_from_db()
    assert account.state == AccountState.ACTIVE


def test_what_cannot_be_done_is_said(admin):
    account = GatewayAccountFactory()
    assert "cannot become active" in act(admin, account, "serve_again").content.decode()


def test_a_viewer_only_looks(client):
    account = GatewayAccountFactory()
    client.force_login(PersonFactory(roles=["viewer"]))
    act(client, account, "switch_off")
    account.refresh_from_db()
    assert account.state == AccountState.ACTIVE
