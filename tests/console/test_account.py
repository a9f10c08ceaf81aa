"""A person's own page. What is secret is shown once, in the answer that makes it, and kept by no cache."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from gateways.models import GatewayAccount
from identities import queries as identity_queries
from identities.models import AccessToken, PairingCode
from tests.console.conftest import SignedIn
from tests.console.page import text_of

TELEGRAM_TOKEN = "123456789:" + "A" * 35
pytestmark = pytest.mark.usefixtures("ada")


def test_a_pairing_code_is_shown_once_with_what_to_do(operator: Client) -> None:
    response = operator.post("/account/pairing-code/")
    assert re.search(r"/pair [2-9A-Z]{8}", text_of(response))
    assert "no-store" in response["Cache-Control"]
    assert PairingCode.objects.count() == 1
    assert "/pair" not in text_of(operator.get("/account/"))


def test_too_many_codes_are_refused_in_words(operator: Client) -> None:
    for _ in range(3):
        operator.post("/account/pairing-code/")
    response = operator.post("/account/pairing-code/", follow=True)
    assert "codes are waiting to be used already" in text_of(response)


def test_a_token_is_shown_once_and_can_be_revoked(operator: Client) -> None:
    response = operator.post("/account/tokens/", {"name": "Deploy script"})
    text = re.search(r"flt_[\w-]+", text_of(response))
    assert text is not None
    assert "no-store" in response["Cache-Control"]
    token = identity_queries.find_access_token(text[0])
    assert token is not None
    assert text[0] not in text_of(operator.get("/account/"))
    assert "Deploy script" in text_of(operator.get("/account/"))

    told = operator.post(f"/account/tokens/{token.pk}/revoke/", follow=True)

    assert "no longer works" in text_of(told)
    assert identity_queries.find_access_token(text[0]) is None


def test_a_token_needs_a_name(operator: Client) -> None:
    assert operator.post("/account/tokens/", {"name": ""}).status_code == 422
    assert not AccessToken.objects.exists()


def test_nobody_revokes_somebody_elses_token(operator: Client, signed_in: SignedIn) -> None:
    operator.post("/account/tokens/", {"name": "Mine"})
    token = AccessToken.objects.get()
    assert signed_in("admin").post(f"/account/tokens/{token.pk}/revoke/").status_code == 404


def test_a_telegram_token_is_written_and_never_read_back(signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    told = admin.post("/account/telegram/", {"bot": "ada", "token": TELEGRAM_TOKEN}, follow=True)
    assert "Ada has a new Telegram token" in text_of(told)
    account = GatewayAccount.objects.get(key="telegram:ada")
    assert TELEGRAM_TOKEN.encode() not in bytes(account.token_sealed)
    page = admin.get("/account/").content.decode()
    assert TELEGRAM_TOKEN not in page
    assert "Not served" in page


@pytest.mark.parametrize("token", ["", "hello", "123:short"])
def test_a_text_that_is_no_telegram_token_is_refused(signed_in: SignedIn, token: str) -> None:
    told = signed_in("admin").post("/account/telegram/", {"bot": "ada", "token": token}, follow=True)
    assert "not a Telegram token" in text_of(told) or "required" in text_of(told)
    assert not GatewayAccount.objects.exists()


def test_only_who_may_edit_gateways_sees_them(operator: Client) -> None:
    assert "Telegram tokens of the bots" not in text_of(operator.get("/account/"))
    assert operator.post("/account/telegram/", {"bot": "ada", "token": TELEGRAM_TOKEN}).status_code == 403
