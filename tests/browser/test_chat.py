"""Talking to a bot in the browser: live, and without losing a word."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.browser.conftest import Visit
from tests.browser.talk import answers, begin, expect_answers, expect_live, say

pytestmark = pytest.mark.browser


def test_a_person_asks_and_the_bot_answers(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "Good **morning** Ada")
    expect_answers(page, 1)
    expect(answers(page)).to_contain_text("built-in mock")
    expect(page.locator(".said--person")).to_contain_text("Good **morning** Ada")
    answers(page).locator(".receipt summary").click()
    expect(answers(page)).to_contain_text("Engine")
    expect(page.locator("#announcer")).to_contain_text("Ada")
    expect(page.get_by_label(re.compile("^Message to"))).to_have_value("")


def test_words_appear_while_they_are_written_and_survive_a_reload(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "mock:tool=Read mock:words=500")
    stream = page.locator(".said__stream")
    expect(stream).to_contain_text("word5", timeout=60_000)
    expect(page.locator("[data-turn] .tool")).to_contain_text("Read")
    expect(page.get_by_text("Writing")).to_be_visible()
    page.reload()
    expect(stream).to_contain_text("word5")
    expect_answers(page, 1)
    text = answers(page).inner_text()
    assert [f"word{number}" in text for number in (1, 100, 500)] == [True] * 3
    assert text.count("word100") == 1
    expect(answers(page).locator(".tool")).to_contain_text("Read")


def test_a_refused_tool_call_reads_denied_while_the_turn_is_live_and_after_it(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "mock:tool=Bash mock:slow=5 mock:words=250")
    expect(page.locator("[data-turn]")).to_be_visible()
    before = page.locator("[data-turn] .tool")
    expect(before.locator(".badge")).to_have_text("Denied", timeout=60_000)
    before.locator("summary").click()
    expect(before.locator(".log")).to_contain_text("grant")
    expect(page.locator(".said__stream")).to_contain_text("word5", timeout=60_000)  # the call has ended meanwhile
    expect(before.locator(".badge")).to_have_text("Denied")
    expect_answers(page, 1)
    expect(answers(page).locator(".tool .badge")).to_have_text("Denied")


def test_a_lost_socket_loses_nothing(visit: Visit, complaints: list[str]) -> None:
    page = visit("/chat/new/?bot=ada")
    sockets: list[WebSocketRoute] = []
    cut = False
    places: list[str] = []

    def through(socket: WebSocketRoute) -> None:
        if cut:
            places.append(socket.url)
            socket.close()
        else:
            socket.connect_to_server()
            sockets.append(socket)

    page.route_web_socket(re.compile("/ws/"), through)
    begin(page, "mock:words=600")
    expect(page.locator(".said__stream")).to_contain_text("word5", timeout=60_000)

    cut = True
    for socket in sockets:
        socket.close()

    expect(page.locator("#connection")).to_contain_text("Connection lost")
    expect(page.locator("#freshness")).to_contain_text("Reconnecting")
    expect(page.locator(".said__stream")).to_contain_text("word150", timeout=60_000)  # fetched, as the socket is gone
    cut = False
    expect_answers(page, 1)
    expect_live(page)
    text = answers(page).inner_text()
    assert text.count("word200 ") == 1
    assert any(re.search(r"turn=\d+&execution=[1-9]\d*&after=[1-9]", place) for place in places)
    assert text.rstrip().count("word600") == 1
    complaints.clear()


def test_text_stays_until_the_server_has_it_and_is_said_once(visit: Visit, complaints: list[str]) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "Hello")
    expect_answers(page, 1)
    box = page.get_by_label(re.compile("^Message to"))

    page.context.set_offline(True)
    say(page, "Are you still there?")
    expect(page.locator("#composer-error")).to_contain_text("Your text is kept")
    expect(box).to_have_value("Are you still there?")
    page.context.set_offline(False)
    page.reload()
    expect(box).to_have_value("Are you still there?")
    box.press("Enter")

    expect_answers(page, 2)
    expect(page.locator(".said--person").filter(has_text="Are you still there?")).to_have_count(1)
    expect(box).to_have_value("")
    complaints.clear()


def test_shift_enter_starts_a_new_line(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    box = page.get_by_label(re.compile("^Message to"))
    box.fill("one")
    box.press("Shift+Enter")
    box.type("two")
    expect(box).to_have_value("one\ntwo")
    expect(page).to_have_url(re.compile("/chat/new/"))


def test_stop_stops_what_runs_and_what_waits_goes_on(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "mock:hang")
    expect(page.locator("[data-turn]")).to_contain_text("Running", timeout=60_000)
    say(page, "Then this")
    expect(page.locator("[data-turn]")).to_have_count(2)
    expect(page.locator("[data-turn]").last).to_contain_text("Position 1")
    page.locator("[data-turn]").first.get_by_role("button", name="Stop").click()
    expect(page.locator(".said--system").filter(has_text="Stopped")).to_be_visible(timeout=60_000)
    expect_answers(page, 1)
    expect(answers(page)).to_contain_text("Then this")


def test_a_failed_turn_says_why(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "mock:fail=overload")
    expect(page.locator(".said--system")).to_contain_text("is overloaded at the moment", timeout=60_000)
    expect(page.locator(".said--system .badge")).to_have_text("Failed")


def test_a_refused_message_comes_back_with_the_reason(visit: Visit, complaints: list[str]) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "Hello")
    expect_answers(page, 1)
    say(page, "/nonsense")
    expect(page.locator("#composer-error")).to_contain_text("There is no command /nonsense")
    expect(page.get_by_label(re.compile("^Message to"))).to_have_value("/nonsense")
    complaints.clear()


def test_the_transcript_follows_only_somebody_who_is_at_its_end(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada", height=500)
    begin(page, "mock:words=500")
    expect(page.locator(".said__stream")).to_contain_text("word150", timeout=60_000)
    from_end = "(box) => box.scrollHeight - box.scrollTop - box.clientHeight"
    box = page.locator("#transcript")
    assert box.evaluate(from_end) < 60
    box.evaluate("(box) => { box.scrollTop = 0; }")
    pill = page.get_by_role("button", name="New below")
    expect(pill).to_be_visible(timeout=60_000)
    assert box.evaluate("(box) => box.scrollTop") == 0
    pill.click()
    expect(pill).to_be_hidden()
    assert box.evaluate(from_end) < 60


def test_a_second_window_sees_the_same_conversation(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "mock:words=150")
    other = visit(page.url)
    expect_answers(page, 1)
    expect_answers(other, 1)
    assert answers(page).inner_text().split()[-5:-1] == answers(other).inner_text().split()[-5:-1]


def test_everything_works_without_scripts(visit: Visit) -> None:
    page = visit("/chat/", java_script_enabled=False)
    page.get_by_label("Bot").select_option("ada")
    page.get_by_role("button", name="New chat").click()
    page.get_by_label(re.compile("^Message to")).fill("Hello without scripts")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url(re.compile(r"/chat/\d+/"))
    expect(page.locator(".said--person")).to_contain_text("Hello without scripts")
    for _ in range(60):
        if answers(page).count():
            break
        page.reload()
    expect(answers(page)).to_contain_text("built-in mock")


def test_the_fleet_shows_a_bot_at_work_without_a_reload(visit: Visit) -> None:
    fleet = visit("/fleet/")
    expect_live(fleet)
    bruno = fleet.locator("#bot-bruno")
    slug = "bruno" if bruno.count() else fleet.locator("tbody tr").nth(1).get_attribute("id").removeprefix("bot-")
    row = fleet.locator(f"#bot-{slug}")
    page = visit(f"/chat/new/?bot={slug}")
    begin(page, "mock:hang please")
    expect(row).to_contain_text("Running", timeout=60_000)
    expect(row).to_contain_text("mock:hang please")
    page.get_by_role("button", name="Stop").click()
    expect(row).to_contain_text("Ready", timeout=60_000)


def test_by_keyboard_a_conversation_is_made_to_steer_and_the_running_turn_takes_what_is_said(visit: Visit) -> None:
    page = visit("/chat/new/?bot=ada")
    begin(page, "Good morning Ada")
    expect_answers(page, 1)
    page.locator("#busy-mode").press("Enter")
    page.get_by_role("button", name=re.compile("^Steer")).press("Enter")
    expect(page.locator("#busy-mode")).to_have_text("While busy: Steer")
    expect_live(page)
    say(page, "Tell me of cats. mock:slow=10")
    expect(page.locator("[data-turn]")).to_be_visible()
    expect(page.get_by_text("Thinking")).to_be_visible(timeout=60_000)
    say(page, "And of dogs.")
    expect(page.locator(".said--system")).to_contain_text("I take this into", timeout=60_000)
    expect_answers(page, 2)
    expect(answers(page).last).to_contain_text("cats")
    expect(answers(page).last).to_contain_text("dogs")
