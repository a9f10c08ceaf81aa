"""Following a conversation and stopping it: also one that takes place elsewhere, by keyboard, and on the page of earlier messages."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from playwright.sync_api import Page, Response, expect

from tests.browser.conftest import Visit
from tests.browser.house import ROOT, House
from tests.browser.talk import answers, begin, expect_answers, expect_live, say

pytestmark = pytest.mark.browser


@pytest.fixture
def elsewhere(house: House) -> str:
    """The address of a conversation on the command line, where a turn is under way."""
    command = [sys.executable, "manage.py", "say", "ada", "mock:hang", "--new", "--json", "--wait", "1"]
    done = subprocess.run(command, cwd=ROOT, env=house.environment, capture_output=True, text=True, timeout=120)
    found = re.search(r'"conversation_id": (\d+)', done.stdout)
    assert found is not None, done.stdout + done.stderr
    return f"/chat/{found[1]}/"


def next_look(page: Page) -> None:
    """Wait until the page has looked by itself, and what it saw is shown."""

    def is_look(answer: Response) -> bool:
        return "/messages/?after=" in answer.url

    with page.expect_response(is_look, timeout=60_000) as seen:
        pass
    seen.value.finished()
    page.evaluate("new Promise((done) => setTimeout(done))")


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


def test_who_stands_on_a_running_turn_s_buttons_stays_there_while_the_page_looks_again(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "mock:tool=Read mock:hang")
    turn = page.locator("[data-turn]")
    tool = turn.locator(".tool")
    expect(tool.locator(".badge")).to_have_text("Done", timeout=60_000)
    expect_live(page)
    tool.locator("summary").click()
    stop = turn.get_by_role("button", name="Stop")
    stop.focus()
    next_look(page)
    next_look(page)
    expect(stop).to_be_focused()
    expect(tool).to_have_attribute("open", "")
    page.keyboard.press("Enter")
    expect(page.locator(".said--system").filter(has_text="Stopped")).to_be_visible(timeout=60_000)


def test_what_a_look_brings_leaves_opened_lines_open_and_the_buttons_where_they_are(
    visit: Visit, complaints: list[str]
) -> None:
    page = visit("/fleet/")
    page.route_web_socket(re.compile("/ws/"), lambda socket: socket.close())
    page.goto("/chat/new/?bot=ada")
    begin(page, "mock:tool=Read mock:words=1500")
    turn = page.locator("[data-turn]")
    turn.locator(".tool summary").click(timeout=60_000)
    turn.get_by_role("button", name="Stop").focus()
    next_look(page)
    next_look(page)
    expect(turn.locator(".said__stream")).to_contain_text("word150 ", timeout=60_000)
    expect(turn.locator(".tool")).to_have_attribute("open", "")
    expect(turn.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(turn).to_have_count(0, timeout=60_000)
    complaints.clear()


def test_on_the_page_of_earlier_messages_nothing_is_sent_out_of_sight(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "Good morning Ada")
    expect_answers(page, 1)
    end, last = page.url, page.locator("#messages > [data-message]").last.get_attribute("data-message")
    page.goto(f"{end}?before={last}")
    expect(page.get_by_label(re.compile("^Message to"))).to_have_count(0)
    page.get_by_role("link", name="To write, go to the newest messages").click()
    expect(page).to_have_url(end)
    say(page, "Good evening Ada")
    expect_answers(page, 2)
    expect(answers(page)).to_have_count(2)
