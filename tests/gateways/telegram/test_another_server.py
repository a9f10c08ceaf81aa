"""A Bot API server that is not ours: no long polling, no offsets, no setMyCommands, no "typing". The gateway takes it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conversations.models import Turn
from fleet.kernel.actors import Actor
from gateways import actions
from gateways.models import GatewayAccount
from tests.conversations import scenes
from tests.emulators.telegram_people import BotHandle
from tests.emulators.telegram_test_api import TelegramTestApi, TestApiPerson
from tests.gateways.running import GatewayInThread, until

BY = Actor.system("test")
TOKEN = "1001:another-server"


@pytest.fixture
def server() -> Iterator[TelegramTestApi]:
    with TelegramTestApi() as server:
        yield server


@pytest.fixture
def bot(ada: Any, eva: Any, server: TelegramTestApi, settings: Any) -> Iterator[BotHandle]:
    """Ada, polled there by the gateway."""
    settings.TELEGRAM_API_ROOT = server.url
    actions.set_token(identity=ada, platform="telegram", token=TOKEN, by=BY)
    with GatewayInThread():
        yield server.add_bot(TOKEN, "ada_bot")


@pytest.fixture
def eva_there(server: TelegramTestApi) -> TestApiPerson:
    return server.person(501, "Eva")


def test_a_command_is_answered(bot: BotHandle, eva_there: TestApiPerson) -> None:
    eva_there.send(bot, "/help")
    assert "I am Ada" in eva_there.wait_for_reply(bot)


def test_a_message_becomes_a_turn_and_its_answer_a_message(bot: BotHandle, eva_there: TestApiPerson) -> None:
    eva_there.send(bot, "Hello Ada")
    turn = until(lambda: Turn.objects.filter(inbound__text="Hello Ada", execution__isnull=False).first())
    scenes.answer(turn, "Good *day*, Eva.")
    assert eva_there.wait_for_reply(bot, "Good") == "Good <i>day</i>, Eva."
    assert GatewayAccount.objects.get().sentence == ""
