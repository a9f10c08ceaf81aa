"""The Runner page in a browser: it follows what happens, and an operator steers from it by keyboard."""

from __future__ import annotations

import threading

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.house import House
from tests.browser.talk import expect_live

pytestmark = pytest.mark.browser


def test_what_waits_and_runs_comes_and_goes_without_a_reload(visit: Visit, house: House) -> None:
    page = visit("/runner/")
    expect(page.get_by_role("heading", name="Runner", exact=True)).to_be_visible()
    expect_live(page)
    saying = threading.Thread(target=house.manage, args=("say", "ada", "mock:slow=10 How are you?"))
    saying.start()
    expect(page.locator("tbody").get_by_text("Running", exact=True)).to_be_visible(timeout=60_000)
    saying.join()
    expect(page.get_by_text("Nothing runs and nothing waits")).to_be_visible(timeout=60_000)


def test_a_worker_is_drained_and_works_again(visit: Visit) -> None:
    page = visit("/runner/")
    page.get_by_role("button", name="Drain").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("takes nothing new and ends what stands by")).to_be_visible()
    expect(page.locator("#runner-now").get_by_text("Drained", exact=True)).to_be_visible()
    page.get_by_role("button", name="Take work again").click()
    expect(page.get_by_text("takes work again", exact=False).first).to_be_visible()
    expect(page.get_by_role("button", name="Drain")).to_be_visible()
