"""Everybody can use the console: axe on every page in both themes and two sizes, the keyboard alone, and a very narrow window."""

from __future__ import annotations

import re

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.house import House
from tests.browser.talk import begin, expect_answers, expect_live

pytestmark = pytest.mark.browser

PAGES = [
    "/fleet/", "/fleet/?q=zzz", "/fleet/ada/", "/fleet/nobody/", "/chat/", "/chat/{talk}/", "/chat/new/?bot=ada", "/kill-switch/",
    "/kill-switch/receipts/{order}/", "/account/", "/accounts/password/change/", "/accounts/logout/", "/productivity/", "/tasks/",
    "/logins/", "/runner/", "/no-such-page/",
]  # fmt: skip
SHUT_LOGIN = """
    INSERT INTO execution_breaker (provider, login, state, cause, sentence, opened_at, until, named, opening, failures)
    VALUES ('claude', '0123456789ab', 'open', 'billing', 'The Claude account has no credit left. Top it up at the provider.',
        now() - interval '1 hour', now() + interval '2 hours', false, 1, 1) ON CONFLICT DO NOTHING
"""
TALK = "# A plan\n\n- one\n- two\n\n`code` mock:tool=Read"
SETTLED = "() => !document.querySelector('.htmx-request')"


@pytest.fixture(scope="module")
def places(house: House) -> dict[str, str]:
    """A conversation with an answer in it, and the receipt of a stop."""
    house.manage("say", "ada", TALK)
    house.manage("stop", "--reason", "A drill")
    house.manage("resume", "--reason", "The drill is over")
    psycopg.connect(house.environment["DATABASE_URL"], autocommit=True).execute(SHUT_LOGIN)
    return {"talk": "1", "order": "1"}


def violations(page: Page) -> list[str]:
    """What axe finds, one line each."""
    # Without preload, axe fetches no style sheets of its own, from addresses that do not exist. Of what it finds in order
    # it would describe every element, which takes longer than finding it; faults are told in full.
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_on_any_page(
    visit: Visit, places: dict[str, str], complaints: list[str], width: int, theme: str
) -> None:
    page = visit("/fleet/", width=width, color_scheme=theme, bypass_csp=True)
    expect_live(page)
    found = {}
    for path in PAGES:
        page.goto(path.format(**places))
        page.wait_for_function(SETTLED)
        found[path] = violations(page)
    complaints[:] = [complaint for complaint in complaints if "404" not in complaint]  # two of the pages do not exist
    assert {path: faults for path, faults in found.items() if faults} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_where_people_sign_in(house: House, browser, theme: str) -> None:
    context = browser.new_context(base_url=house.url, color_scheme=theme, bypass_csp=True)
    page = context.new_page()
    found = {}
    for path in ("/accounts/login/", "/sign-in/wrong/", house.sign_in_link()):
        page.goto(path)
        found[path] = violations(page)
    assert {path: faults for path, faults in found.items() if faults} == {}
    context.close()


def test_axe_finds_nothing_while_a_bot_answers(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada", bypass_csp=True)
    begin(page, "mock:tool=Read mock:words=300")
    expect(page.locator(".said__stream")).to_contain_text("word5", timeout=60_000)
    assert violations(page) == []
    expect_answers(page, 1)


@pytest.mark.parametrize("path", [path for path in PAGES if "no" not in path.split("/")[1]])
def test_nothing_is_cut_off_in_a_window_of_320_pixels(
    visit: Visit, places: dict[str, str], complaints: list[str], path: str
) -> None:
    page = visit(path.format(**places), width=320, height=640)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    complaints[:] = [complaint for complaint in complaints if "404" not in complaint]


def test_pages_do_not_upset_the_browser_or_its_security_policy(visit: Visit, places: dict[str, str]) -> None:
    page = visit("/")
    for path in PAGES:
        if "nobody" not in path and "no-such" not in path:
            page.goto(path.format(**places))
            page.wait_for_function(SETTLED)


def test_the_keyboard_reaches_the_content_first(visit: Visit) -> None:
    page = visit("/fleet/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Find a bot")).to_be_focused()


def test_a_bot_is_found_and_spoken_to_by_keyboard_alone(visit: Visit) -> None:
    page = visit("/fleet/")
    page.get_by_role("link", name=re.compile("^Ada")).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/fleet/ada/")
    page.get_by_role("link", name="New chat").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/chat/new/**")  # and its scripts: before them, Enter is a new line
    expect(page.get_by_label(re.compile("^Message to"))).to_be_focused()
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/chat/\d+/"))
    expect_answers(page, 1)


def test_focus_stays_while_a_live_region_is_renewed(visit: Visit) -> None:
    page = visit("/fleet/")
    expect_live(page)
    link = page.locator("#open-ada")
    link.focus()
    page.evaluate("htmx.trigger('#bots', 'live')")
    page.wait_for_function("() => !document.querySelector('.htmx-request, .htmx-settling, .htmx-swapping')")
    expect(link).to_be_focused()


def test_on_a_phone_the_rail_opens_and_closes_by_keyboard(visit: Visit) -> None:
    page = visit("/fleet/", width=390, height=844)
    rail = page.get_by_role("navigation", name="Console")
    expect(rail).to_be_hidden()
    page.get_by_role("button", name="Menu").focus()
    page.keyboard.press("Enter")
    expect(rail).to_be_visible()
    page.keyboard.press("Escape")
    expect(rail).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    rail.get_by_role("link", name="Kill switch").click()
    page.wait_for_url("**/kill-switch/")


def test_targets_are_large_enough_to_hit(visit: Visit, places: dict[str, str]) -> None:
    page = visit("/fleet/", width=390, height=844)
    small = """() => [...document.querySelectorAll('button, select, input:not([type=hidden]), summary, .button')]
      .filter((it) => it.checkVisibility({visibilityProperty: true}))
      .filter((it) => { const box = it.getBoundingClientRect(); return box.width < 24 || box.height < 24; })
      .filter((it) => !it.closest('label') && !it.labels?.length)
      .map((it) => it.outerHTML.slice(0, 120))"""
    found = {}
    for path in PAGES:
        if "no" not in path.split("/")[1] and "nobody" not in path:
            page.goto(path.format(**places))
            found[path] = page.evaluate(small)
    assert {path: faults for path, faults in found.items() if faults} == {}


def test_the_page_can_be_paused_and_resumed(visit: Visit) -> None:
    page = visit("/fleet/")
    expect_live(page)
    pill = page.locator("#freshness")
    pill.click()
    expect(pill).to_have_text("Paused")
    pill.click()
    expect(pill).to_have_text("Live")
