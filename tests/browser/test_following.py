"""Following a conversation that takes place elsewhere, and stopping it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.house import ROOT, House

pytestmark = pytest.mark.browser


@pytest.fixture
def elsewhere(house: House) -> str:
    """The address of a conversation on the command line, where a turn is under way."""
    command = [sys.executable, "manage.py", "say", "ada", "mock:hang", "--new", "--json", "--wait", "1"]
    done = subprocess.run(command, cwd=ROOT, env=house.environment, capture_output=True, text=True, timeout=120)
    found = re.search(r'"conversation_id": (\d+)', done.stdout)
    assert found is not None, done.stdout + done.stderr
    return f"/chat/{found[1]}/"


def test_where_one_can_only_follow_a_stop_that_fails_is_told(
    visit: Visit, elsewhere: str, complaints: list[str]
) -> None:
    page = visit(elsewhere)
    stop = page.locator("[data-turn]").get_by_role("button", name="Stop")
    expect(page.locator(".chat__closed")).to_contain_text("Here you can follow and stop it.")
    page.context.set_offline(True)
    stop.click()
    expect(page.get_by_role("alert")).to_contain_text("Not stopped. The server does not answer.")
    page.context.set_offline(False)
    page.route("**/stop/", lambda route: route.fulfill(status=503, body=""))
    stop.click()
    expect(page.get_by_role("alert")).to_contain_text("Not stopped. The server answered with an error (503).")
    page.unroute("**/stop/")
    stop.click()
    expect(page.locator(".said--system").filter(has_text="Stopped")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("alert")).to_be_empty()
    complaints.clear()


def test_where_one_can_only_follow_a_lost_connection_is_told(
    visit: Visit, elsewhere: str, complaints: list[str]
) -> None:
    page = visit("/fleet/")
    page.route_web_socket(re.compile("/ws/"), lambda socket: socket.close())
    page.goto(elsewhere)
    expect(page.locator("#connection")).to_contain_text("Connection lost")
    page.locator("[data-turn]").get_by_role("button", name="Stop").click()
    expect(page.locator(".said--system").filter(has_text="Stopped")).to_be_visible(timeout=60_000)
    complaints.clear()
