"""The way in: a one-time link, a password, and the way out."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Visit
from tests.browser.house import House

pytestmark = pytest.mark.browser


def test_a_link_opens_the_console_once(house: House, browser: Browser) -> None:
    link = house.sign_in_link()
    first, second = browser.new_context().new_page(), browser.new_context().new_page()
    first.goto(link)
    expect(first.get_by_role("heading")).to_have_text("Sign in as operator")
    first.get_by_role("button", name="Sign in").click()
    expect(first.get_by_role("heading", name="Fleet")).to_be_visible()

    second.goto(link)

    expect(second.get_by_role("heading")).to_have_text(re.compile("does not work"))
    for page in (first, second):
        page.context.close()


def test_a_wrong_password_is_told_at_the_top_and_nothing_happens(house: House, browser: Browser) -> None:
    page = browser.new_context(base_url=house.url).new_page()
    page.goto("/chat/")
    expect(page).to_have_url(re.compile(r"/accounts/login/\?next=/chat/"))
    page.get_by_label("Login").fill("operator")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not correct")
    page.context.close()


def test_signing_out_closes_the_console(house: House, browser: Browser) -> None:
    page = browser.new_context(base_url=house.url).new_page()
    page.goto(house.sign_in_link())
    page.get_by_role("button", name="Sign in").click()
    page.locator("summary[aria-label='Your account']").click()
    page.get_by_role("button", name="Sign out").click()
    page.goto("/fleet/")
    expect(page).to_have_url(re.compile("/accounts/login/"))
    page.context.close()


def test_the_theme_changes_at_once_and_is_remembered(visit: Visit) -> None:
    page = visit("/fleet/", color_scheme="light")
    ground = "getComputedStyle(document.querySelector('.main')).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Theme: dark").click()
    page.reload()
    expect(page.locator("html")).not_to_have_attribute("data-theme", re.compile(".*"))
