"""Eva is signed in, and her browser opens sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client

from identities.models import Person
from tests.gateways.web.sockets import Browser


@pytest.fixture
def browser(eva: Person, client: Client) -> Iterator[Browser]:
    client.force_login(eva)
    browser = Browser(client)
    yield browser
    browser.close()
