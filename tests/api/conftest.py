"""The cast of the API's tests: the bot Ada, one person of each role, and ways to call as each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from budgets import actions as budget_actions
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from identities import actions as identity_actions
from identities.models import Identity, Person
from identities.permissions import Role
from tests.conversations import scenes

BY = Actor.system("test")
Call = Callable[..., HttpResponse]


@pytest.fixture
def ada(db: None) -> Identity:
    """Bot Ada, with prices, budgets and the default policy in place."""
    identity = scenes.bot("ada")
    governance_actions.ensure_default_policy(by=BY)
    budget_actions.import_prices(by=BY)
    budget_actions.ensure_default_budgets(by=BY)
    return identity


@pytest.fixture
def people(db: None) -> dict[str, Person]:
    """One person of each role, by the role's name."""
    return {role: Person.objects.create_user(username=role, roles=[role]) for role in Role.values}


@pytest.fixture
def eva(people: dict[str, Person]) -> Person:
    """An operator."""
    return people["operator"]


def token_of(person: Person, **options: Any) -> str:
    """A fresh access token of this person."""
    return identity_actions.issue_access_token(person=person, name="test", by=BY, **options)[0]


def gateway_token(person: Person, account: str = "telegram:ada") -> str:
    """A fresh gateway token of this account."""
    return token_of(person, gateway=True, gateway_account=account)


@pytest.fixture
def call(client: Client) -> Call:
    """Call the API: `call("POST", "/message", {...}, token=...)`; the answer's body is read by `.json()`."""

    def send(method: str, path: str, body: Any = None, *, token: str = "", **headers: str) -> HttpResponse:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else b""
        kind = headers.pop("content_type", "application/json")
        return client.generic(method, path, data, content_type=kind, headers=headers)

    return send
