"""Fixtures: a model API and a Telegram for one test, each on ports of its own."""

from collections.abc import Iterator

import pytest

from tests.emulators.model import ModelEmulator
from tests.emulators.telegram import TelegramEmulator


@pytest.fixture
def model_emulator() -> Iterator[ModelEmulator]:
    with ModelEmulator() as model:
        yield model


@pytest.fixture
def telegram_emulator() -> Iterator[TelegramEmulator]:
    with TelegramEmulator() as telegram:
        yield telegram
