"""Two providers with logins of their own that think as little as the mock: what happens to a login is what tests tell them."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings

from execution.ports import Capabilities
from execution.providers.mock import script
from execution.providers.mock.provider import MockProvider


class Acme(MockProvider):
    """The first of the chain."""

    capabilities = Capabilities(name="acme", model=script.MODEL, spawns_process=False)

    def login(self) -> str:
        return "key-1"


class Bolt(MockProvider):
    """The second of the chain."""

    capabilities = Capabilities(name="bolt", model=script.MODEL, spawns_process=False)

    def login(self) -> str:
        return "key-2"


CHAIN = ["acme", "bolt"]


@pytest.fixture
def two_logins(settings: Any) -> None:
    """Register them."""
    settings.FLEET_PROVIDERS = {
        **django_settings.FLEET_PROVIDERS,
        "acme": f"{__name__}.Acme",
        "bolt": f"{__name__}.Bolt",
    }
