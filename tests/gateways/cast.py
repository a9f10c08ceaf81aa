"""Fixtures of everything that talks Telegram, here and among the faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgets import actions as budget_actions
from fleet.kernel.actors import Actor
from gateways import actions as gateway_actions
from governance import actions as governance_actions
from identities.models import ChatAccount, Identity, Person
from tests.conversations import scenes
from tests.emulators.telegram import BotHandle, Telegram, TelegramEmulator
from tests.emulators.telegram import Person as Talker
from tests.gateways.running import GatewayInThread, Gateways

BY = Actor.system("test")
TOKEN = "1001:a-token-of-the-tests"


@pytest.fixture
def telegram() -> Iterator[Telegram]:
    """A Telegram of this test's own."""
    with TelegramEmulator() as emulator:
        yield emulator


@pytest.fixture
def ada(transactional_db: None) -> Identity:
    """Bot Ada, with prices, budgets and the default policy in place."""
    identity = scenes.bot("ada", provider_chain=["mock"])
    governance_actions.ensure_default_policy(by=BY)
    budget_actions.import_prices(by=BY)
    budget_actions.ensure_default_budgets(by=BY)
    return identity


@pytest.fixture
def eva(ada: Identity) -> Person:
    """An operator whose Telegram account is 501."""
    person = scenes.operator("eva")
    ChatAccount.objects.create(platform="telegram", external_id="501", person=person)
    return person


@pytest.fixture
def ada_on_telegram(ada: Identity, telegram: Telegram) -> BotHandle:
    """Ada's bot at Telegram, its token set."""
    gateway_actions.set_token(identity=ada, platform="telegram", token=TOKEN, by=BY)
    return telegram.add_bot(TOKEN, "ada_bot")


@pytest.fixture
def gateways(telegram: Telegram, tmp_path: Path) -> Iterator[Gateways]:
    """Starts real gateway processes against this test's Telegram."""
    running = Gateways(telegram.url, tmp_path)
    yield running
    running.end()


@pytest.fixture
def gateway(telegram: Telegram, ada_on_telegram: BotHandle, settings: Any) -> Iterator[GatewayInThread]:
    """The gateway service inside this process, polling for Ada."""
    settings.TELEGRAM_API_ROOT = telegram.url
    with GatewayInThread() as running:
        telegram.wait_for_calls("getUpdates")
        yield running


@pytest.fixture
def eva_talks(telegram: Telegram, eva: Person) -> Talker:
    """Eva at Telegram."""
    return telegram.person(501, "Eva")
