"""The whole product, started once for all journeys and faults: real services, the real Claude CLI, emulated model and Telegram."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from tests.emulators.model import ModelEmulator
from tests.emulators.telegram import BotHandle, Person, TelegramEmulator
from tests.product import Product

TOKEN = "4001:journeys"
PATIENCE = 120.0


@dataclass
class World:
    """One running Fleet with bot Ada in Telegram. Every scene uses a person of its own, so that scenes do not meet."""

    product: Product
    model: ModelEmulator
    telegram: TelegramEmulator
    ada: BotHandle
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(9001))

    def person(self, *, paired: bool = True) -> Person:
        """Somebody new; paired people speak as the operator."""
        person = self.telegram.person(next(self._numbers), "Eva")
        if paired:
            self.product.sql(
                "INSERT INTO identities_chataccount (platform, external_id, person_id)"
                " SELECT 'telegram', %s, id FROM identities_person ORDER BY id LIMIT 1",
                str(person.id),
            )
        return person

    def turns_of(self, person: Person) -> list[tuple[str, str]]:
        """Return (state, sentence) of the turns in a person's private chat, in order."""
        return self.product.sql(
            "SELECT t.state, t.sentence FROM conversations_turn t JOIN conversations_conversation c ON c.id = t.conversation_id"
            " WHERE c.chat_id = %s ORDER BY t.id",
            str(person.id),
        )

    def told(self, person: Person) -> list[str]:
        """Return what bots have said to this person."""
        return [message.text for message in self.telegram.sent(person.id)]

    def processes_of(self, person: Person) -> list[psutil.Process]:
        """Return the living processes of this person's executions: shim, CLI and what it started."""
        pids = self.product.sql(
            "SELECT e.pid FROM execution_execution e JOIN conversations_turn t ON t.execution_id = e.id"
            " JOIN conversations_conversation c ON c.id = t.conversation_id WHERE c.chat_id = %s AND e.pid IS NOT NULL",
            str(person.id),
        )
        return [process for (pid,) in pids for process in _tree(pid)]

    def kill_processes_of(self, person: Person) -> None:
        """Kill what answers this person, what was started last first."""
        for process in reversed(self.processes_of(person)):
            with contextlib.suppress(psutil.NoSuchProcess):  # the shim ends with its CLI
                process.kill()


def _tree(pid: int) -> list[psutil.Process]:
    """Return a living process and everything below it; nothing when it is gone, or goes while one looks."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def eventually(question: Callable[[], Any], *, seconds: float = PATIENCE) -> Any:
    """Ask until the answer is true; return it."""
    give_up = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > give_up:
            raise AssertionError(f"It did not come true within {seconds:.0f} s.")
        time.sleep(0.1)
    return answer


@contextmanager
def started() -> Iterator[World]:
    """Start the product with the emulators it talks to."""
    with ModelEmulator() as model, TelegramEmulator() as telegram:
        ada = telegram.add_bot(TOKEN, "ada_bot")
        variables = {
            "TELEGRAM_API_ROOT": telegram.url,
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "sk-ant-not-a-key",
            "OPENAI_BASE_URL": f"{model.url}/v1",
            "OPENAI_API_KEY": "sk-not-a-key",
            "FLEET_TELEGRAM_ADA_TOKEN": TOKEN,
        }
        with Product(**variables) as product:
            yield World(product, model, telegram, ada)


@pytest.fixture(scope="session")
def _running() -> Iterator[World]:
    with started() as world:
        yield world


@pytest.fixture
def world(_running: World) -> World:
    """The running product, with a model that has forgotten earlier scenes, and logins that nobody remembers to have failed."""
    _running.model.clear()
    _running.product.sql("DELETE FROM execution_breaker")
    return _running
