"""A real Chromium in front of a real installation. Every page must keep the console free of errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.house import House, open_house

NO_CHROMIUM = (
    "There is no Chromium. As root: apt-get install chromium-headless-shell. "
    "Else: .venv/bin/python -m playwright install chromium."
)
Visit = Callable[..., Page]
expect.set_options(timeout=60_000)  # what is expected takes long on a machine that does other things as well


@pytest.fixture(scope="package")
def house() -> Iterator[House]:
    """The installation all browser tests visit."""
    with open_house() as opened:
        yield opened


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium, Debian's if it is there, without windows if it may be. Closed with the package: its loop would disturb other tests."""
    with sync_playwright() as playwright:
        own = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        try:
            chromium = playwright.chromium.launch(executable_path=own, args=options)
        except Exception as error:
            pytest.fail(f"{NO_CHROMIUM} {error}")
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def session(house: House, browser: Browser) -> dict[str, object]:
    """The cookies of a signed-in administrator."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(house.sign_in_link())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/fleet/")
    cookies = context.storage_state()
    context.close()
    return dict(cookies)


@pytest.fixture
def complaints() -> list[str]:
    """What browsers complained about; a test that expects a complaint takes it out."""
    return []


@pytest.fixture
def contexts(house: House, browser: Browser, session: dict[str, object]) -> Iterator[Callable[..., BrowserContext]]:
    """Open signed-in browser windows of any size, theme or ability; all are closed at the end."""
    opened: list[BrowserContext] = []

    def open_context(*, width: int = 1280, height: int = 800, **options: object) -> BrowserContext:
        wanted = {"storage_state": session, "base_url": house.url, **options}
        opened.append(browser.new_context(viewport={"width": width, "height": height}, **wanted))
        return opened[-1]

    yield open_context
    for context in opened:
        context.close()


@pytest.fixture
def visit(contexts: Callable[..., BrowserContext], complaints: list[str]) -> Iterator[Visit]:
    """Open a page; at the end nothing may stand in the browser's console: no error, no report of the security policy."""

    def go(path: str, **options: object) -> Page:
        page = contexts(**options).new_page()
        page.on("console", lambda message: _note(message, complaints))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        return page

    yield go
    assert complaints == []


def _note(message: ConsoleMessage, complaints: list[str]) -> None:
    if message.type in {"error", "warning"}:
        complaints.append(message.text)
