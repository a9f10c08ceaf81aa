"""The cast of the console's tests: the bot Ada, one person of each role, and a browser without scripts for each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from budgets import actions as budget_actions
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from identities.models import Identity, Person
from identities.permissions import Role
from tests.conversations import scenes

BY = Actor.system("test")
SignedIn = Callable[[str], Client]


@pytest.fixture
def ada(db: None) -> Identity:
    """Bot Ada, with prices, budgets and the default policy in place."""
    identity = scenes.bot("ada", title="Chief of staff", department="Office")
    governance_actions.ensure_default_policy(by=BY)
    budget_actions.import_prices(by=BY)
    budget_actions.ensure_default_budgets(by=BY)
    return identity


@pytest.fixture
def people(db: None) -> dict[str, Person]:
    """One person of each role, by the role's name."""
    return {role: Person.objects.create_user(username=role, roles=[role]) for role in Role.values}


@pytest.fixture
def signed_in(people: dict[str, Person]) -> SignedIn:
    """Return a client that is signed in as the person of a role."""

    def sign_in(role: str) -> Client:
        client = Client()
        client.force_login(people[role])
        return client

    return sign_in


@pytest.fixture
def operator(signed_in: SignedIn) -> Client:
    """An operator's browser."""
    return signed_in("operator")
