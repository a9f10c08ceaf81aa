"""The kill switch in the browser: a typed word, a receipt that fills by itself, and a way back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.talk import begin, expect_answers, say

pytestmark = pytest.mark.browser


def stop_the_fleet(page: Page, reason: str) -> None:
    """Fill the form in and send it."""
    page.get_by_label("Reason", exact=True).fill(reason)
    page.get_by_label("Type STOP").fill("STOP")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_url(re.compile(r"/kill-switch/receipts/\d+/"))


def resume_the_fleet(page: Page) -> None:
    """Go back to the switch and lift the order."""
    page.goto("/kill-switch/")
    page.get_by_label("Reason for resuming").fill("The feed is correct again")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#kill-badge")).to_contain_text("Running")


def test_a_stop_is_verified_on_its_receipt_and_a_resume_brings_the_bots_back(visit: Visit) -> None:
    chat = visit("/chat/new/?bot=ada")
    begin(chat, "mock:hang")
    expect(chat.locator("[data-turn]")).to_contain_text("Running", timeout=60_000)

    page = visit("/kill-switch/")
    expect(page.locator("#kill-now")).to_contain_text(re.compile(r"Running now\s*[1-9]"))
    stop_the_fleet(page, "Wrong prices in the shop feed")

    receipt = page.locator("#receipt")
    expect(receipt).to_contain_text("Stopped, verified", timeout=60_000)
    expect(receipt).to_contain_text("Ada")
    expect(receipt.get_by_text("has not stopped")).to_have_count(0)
    expect(page.locator("#kill-badge")).to_contain_text("Stopped")
    expect(chat.locator("#kill-badge")).to_contain_text("Stopped", timeout=60_000)
    expect(chat.locator(".said--system")).to_contain_text("Wrong prices in the shop feed", timeout=60_000)
    say(chat, "Anybody there?")
    refused = chat.locator(".said--system").last
    expect(refused).to_contain_text("Refused")
    expect(refused).to_contain_text("Wrong prices in the shop feed")

    resume_the_fleet(page)

    say(chat, "And now?")
    expect_answers(chat, 1)


def test_without_the_typed_word_nothing_stops(visit: Visit, complaints: list[str]) -> None:
    page = visit("/kill-switch/")
    page.get_by_label("Reason", exact=True).fill("A try")
    page.get_by_role("button", name="Stop", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Nothing was done yet")
    alert.get_by_role("link", name="Type STOP").click()
    expect(page.get_by_label("Type STOP")).to_be_focused()
    expect(page.locator("#kill-badge")).to_contain_text("Running")
    complaints.clear()  # the browser names the answer 422


def test_the_switch_works_without_scripts(visit: Visit) -> None:
    page = visit("/kill-switch/", java_script_enabled=False)
    stop_the_fleet(page, "A drill")
    expect(page.locator("main")).to_contain_text("A drill")
    resume_the_fleet(page)
