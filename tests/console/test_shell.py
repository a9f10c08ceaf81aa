"""What stands around every page, and the pages that are still to come."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client
from django.urls import get_resolver

from fleet.console.navigation import GROUPS, PLANNED
from fleet.permissions import rule_for
from identities.models import Person
from tests.console.conftest import SignedIn
from tests.console.page import text_of

pytestmark = pytest.mark.usefixtures("ada")
MISSION = {
    "Productivity", "Fleet", "Chat", "Tasks", "Runner", "Budgets", "Improvements", "Docs", "Services", "Desktops", "Logs",
    "Approvals", "Logins",
}  # fmt: skip


def test_the_rail_leads_to_every_page_of_the_mission(operator: Client) -> None:
    assert {page.title for group in GROUPS for page in group.pages} == MISSION
    page = text_of(operator.get("/fleet/"))
    for title in (*MISSION, "Kill switch"):
        assert title in page


@pytest.mark.parametrize("slug", sorted(PLANNED))
def test_a_page_that_is_not_built_says_so_and_what_it_will_show(operator: Client, slug: str) -> None:
    page = text_of(operator.get(f"/{slug}/"))
    assert "This page is not built yet." in page
    assert PLANNED[slug].promise in page


def test_productivity_names_each_of_its_sections(operator: Client) -> None:
    page = text_of(operator.get("/productivity/"))
    for section in PLANNED["productivity"].sections:
        assert section.title in page
        assert section.promise in page


def test_an_address_that_is_no_page_is_not_found(operator: Client) -> None:
    assert operator.get("/no-such-page/").status_code == 404


def test_every_address_of_the_console_has_its_rule() -> None:
    console = next(part for part in get_resolver().url_patterns if getattr(part, "app_name", "") == "console")
    for pattern in console.url_patterns:
        assert rule_for(f"console:{pattern.name}") is not None, pattern.name


def test_nobody_gets_in_without_signing_in(client: Client) -> None:
    for path in ("/", "/fleet/", "/chat/", "/kill-switch/", "/account/", "/tasks/"):
        response = client.get(path)
        assert response.status_code == 302
        assert response.url.startswith(settings.LOGIN_URL.replace("account_login", "/accounts/login/"))


def test_the_way_in_leads_to_the_fleet(operator: Client) -> None:
    assert operator.get("/").url == "/fleet/"


def test_without_credentials_a_banner_says_that_bots_are_scripted_and_how_to_switch(operator: Client) -> None:
    page = text_of(operator.get("/fleet/"))
    assert "Bots answer with the built-in mock" in page
    assert "ANTHROPIC_API_KEY" in page


def test_times_are_those_of_the_persons_own_clock(operator: Client, people: dict[str, Person]) -> None:
    people["operator"].timezone = "Asia/Tokyo"
    people["operator"].save()
    assert "times in Asia/Tokyo" in text_of(operator.get("/fleet/"))
    people["operator"].timezone = "Nowhere/At_All"
    people["operator"].save()
    assert "times in UTC" in text_of(operator.get("/fleet/"))


def test_admin_is_offered_only_to_who_may_repair_records(signed_in: SignedIn) -> None:
    assert 'href="/admin/"' in signed_in("admin").get("/fleet/").content.decode()
    assert 'href="/admin/"' not in signed_in("operator").get("/fleet/").content.decode()


def test_the_look_is_kept_in_the_browser_and_leads_back(operator: Client) -> None:
    response = operator.post("/account/look/", {"theme": "dark", "density": "compact", "next": "/chat/?x=1"})
    assert response.url == "/chat/?x=1"
    page = operator.get("/fleet/").content.decode()
    assert '<html lang="en" data-theme="dark" data-density="compact">' in page
    operator.post("/account/look/", {"theme": "", "next": "/fleet/"})
    assert "data-theme" not in operator.get("/fleet/").content.decode().partition("<head>")[0]


@pytest.mark.parametrize("target", ["https://example.org/", "//example.org/", "javascript:alert(1)", ""])
def test_the_look_never_leads_away(operator: Client, target: str) -> None:
    assert operator.post("/account/look/", {"theme": "evil", "next": target}).url == "/"


def test_pages_carry_no_inline_script_or_style(operator: Client) -> None:
    for path in (
        "/fleet/",
        "/fleet/ada/",
        "/chat/",
        "/chat/new/?bot=ada",
        "/kill-switch/",
        "/account/",
        "/productivity/",
    ):
        page = operator.get(path).content.decode()
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        assert page.count("<script") == page.count("<script src=")


def test_an_error_explains_itself_in_the_same_calm_style(operator: Client) -> None:
    page = text_of(operator.get("/fleet/nobody/"))
    assert "There is no bot called" in page
    assert "To the console" in page
