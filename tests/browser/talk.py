"""What a person does on a chat page."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


def say(page: Page, text: str) -> None:
    """Write a message and press Enter."""
    box = page.get_by_label(re.compile("^Message to"))
    box.fill(text)
    box.press("Enter")


def begin(page: Page, text: str) -> None:
    """Say the first words on the page of a new chat, and wait until the conversation has an address."""
    say(page, text)
    page.wait_for_url(re.compile(r"/chat/\d+/"))


def answers(page: Page) -> Locator:
    """The finished replies of the bot."""
    return page.locator("#messages .said--bot")


def expect_answers(page: Page, number: int) -> None:
    """Wait until the bot has finished so many replies, and nothing is under way any more."""
    expect(answers(page)).to_have_count(number, timeout=60_000)
    expect(page.locator("[data-turn]")).to_have_count(0, timeout=60_000)


def expect_live(page: Page) -> None:
    """Wait until the page is connected."""
    expect(page.locator("#freshness")).to_have_text("Live", timeout=60_000)
