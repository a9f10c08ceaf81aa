"""The page of logins: what is left alone, until when, and the button that has it tried again."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client

from execution import actions
from execution.conformance.running import Result
from execution.models import Breaker
from execution.providers import registry
from fleet.console.screens.logins import login_rows
from fleet.kernel import clock
from identities.models import Identity
from tests.console.page import text_of
from tests.conversations.test_failover import chain, fail, only_acme, scenes
from tests.execution.logins import two_logins
from tests.factories.execution import BY

__all__ = ["chain", "only_acme", "two_logins"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def at_noon() -> None:
    """These tests need no clock of their own."""


@pytest.fixture
def eva(people) -> object:
    """The operator has a Telegram account."""
    from identities.models import ChatAccount

    ChatAccount.objects.create(platform="telegram", external_id="501", person=people["operator"])
    return people["operator"]


@pytest.fixture
def shut(only_acme: Identity) -> Breaker:
    """Acme's login is at its limit for two hours, and a message waits for it."""
    fail(scenes.turn_of(scenes.say("Hello")), retry_at=clock.now() + dt.timedelta(hours=2))
    return Breaker.objects.get()


def test_says_which_login_is_left_alone_and_what_waits_for_it(shut: Breaker, operator: Client) -> None:
    page = text_of(operator.get("/logins/"))
    assert "Acme key key-1 Left alone" in page
    assert "Bolt key key-2 In use" in page
    assert "1 message waits until a login may be used again." in page


def test_says_what_a_provider_without_a_key_needs(ada: Identity, operator: Client) -> None:
    page = text_of(operator.get("/logins/"))
    assert "Claude Not set up" in page and "ANTHROPIC_API_KEY" in page


def test_tells_a_subscription_from_a_key(ada: Identity, operator: Client, settings) -> None:
    settings.CLAUDE_CODE_OAUTH_TOKEN = "sk-ant-oat01-canary"
    page, name = operator.get("/logins/"), registry.get("claude").login()
    assert f"Claude subscription {name} In use" in text_of(page) and "canary" not in page.content.decode()
    settings.ANTHROPIC_API_KEY = "sk-ant-canary"
    assert f"Claude key {registry.get('claude').login()} In use" in text_of(operator.get("/logins/"))


def test_an_operator_has_it_tried_again(shut: Breaker, operator: Client) -> None:
    page = text_of(operator.post(f"/logins/{shut.pk}/reset/", follow=True))
    assert "The login is used again." in page
    shut.refresh_from_db()
    assert shut.state == "closed"


def test_who_may_only_look_has_no_button_and_is_refused(shut: Breaker, signed_in) -> None:
    viewer = signed_in("viewer")
    assert "Try now" not in text_of(viewer.get("/logins/"))
    assert viewer.post(f"/logins/{shut.pk}/reset/").status_code == 403
    shut.refresh_from_db()
    assert shut.state == "open"


def test_a_login_that_does_not_exist_is_said_to(operator: Client, ada: Identity) -> None:
    assert operator.post("/logins/4711/reset/").status_code == 404


def test_a_login_whose_key_was_replaced_is_shown_apart(shut: Breaker, operator: Client, monkeypatch) -> None:
    monkeypatch.setattr("tests.execution.logins.Acme.login", lambda self: "key-3")
    page = text_of(operator.get("/logins/"))
    assert "Acme key key-3 In use" in page and "Earlier logins" in page
    Breaker.objects.update(until=clock.now() - dt.timedelta(hours=5))
    assert "Earlier logins" not in text_of(operator.get("/logins/"))


def test_a_login_whose_moment_has_passed_is_tried_with_the_next_message(shut: Breaker, operator: Client) -> None:
    (before,) = (row for row in login_rows()[0] if row.provider == "Acme")
    assert (before.status.word, before.until) == ("Left alone", shut.until)
    Breaker.objects.update(until=clock.now() - dt.timedelta(hours=5))
    (after,) = (row for row in login_rows()[0] if row.provider == "Acme")
    assert (after.status.word, after.until, after.may_be_reset) == ("Tried with the next message", None, True)
    assert "Acme key key-1 Tried with the next message" in text_of(operator.get("/logins/"))


def test_one_that_is_being_tried_says_so_whatever_its_moment(shut: Breaker) -> None:
    Breaker.objects.update(until=clock.now() - dt.timedelta(hours=5), state="half_open")
    assert [row.status.word for row in login_rows()[0] if row.provider == "Acme"] == ["Being tried"]


class TestInstalledPrograms:
    """The last check of each CLI, and whether it was of the version that is installed."""

    def check_claude(self, version: str, *, kept: bool = True) -> None:
        cases = [Result("text", True, "", 0.1), Result("deny", kept, "" if kept else "It ran what was refused.", 0.1)]
        actions.record_check(provider="claude", version=version, results=cases, by=BY)

    def test_one_that_was_never_checked_says_how(self, operator: Client) -> None:
        page = text_of(operator.get("/logins/"))
        assert "Not checked Nobody has checked it. Run ./manage.py providers check claude never" in page

    def test_one_that_kept_everything(self, operator: Client) -> None:
        self.check_claude(registry.get("claude").version())
        assert "Checked 2 of 2 promises kept" in text_of(operator.get("/logins/"))

    def test_one_that_failed_says_what_happened(self, operator: Client) -> None:
        self.check_claude(registry.get("claude").version(), kept=False)
        page = text_of(operator.get("/logins/"))
        assert "Failed its check 1 of 2 promises kept" in page
        assert "Deny: not kept. It ran what was refused." in page

    def test_a_check_of_another_version_does_not_count(self, operator: Client) -> None:
        self.check_claude("1.0.0")
        assert "Not checked in this version The check was of 1.0.0." in text_of(operator.get("/logins/"))
