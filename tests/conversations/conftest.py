"""The cast of these tests: the bot Ada, and Eva, who is paired with Telegram account 501."""

import pytest

from budgets import actions as budget_actions
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from identities.models import ChatAccount, Identity, Person
from tests.conversations import scenes


@pytest.fixture
def ada(db: None) -> Identity:
    """Bot Ada, with prices, budgets and the default policy in place."""
    by = Actor.system("test")
    identity = scenes.bot("ada")
    governance_actions.ensure_default_policy(by=by)
    budget_actions.import_prices(by=by)
    budget_actions.ensure_default_budgets(by=by)
    return identity


@pytest.fixture
def eva(ada: Identity) -> Person:
    """An operator whose Telegram account is 501."""
    person = scenes.operator("eva")
    ChatAccount.objects.create(platform="telegram", external_id="501", person=person)
    return person
