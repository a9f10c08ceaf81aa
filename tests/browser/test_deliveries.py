"""What did not arrive on Telegram, seen and sent again in the browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.house import House
from tests.browser.test_accessibility import violations

pytestmark = pytest.mark.browser
# Somebody asked on Telegram, and the answers came to these ends. Nobody holds the token, so what is sent again only waits.
SCENE = """
import time
from conversations.models import Conversation, Delivery, Turn
from gateways.models import GatewayAccount
from identities.models import Identity, Person
from tests.conversations import scenes
from tests.factories.gateways import GatewayAccountFactory

admin = Person.objects.first()
admin.chat_accounts.get_or_create(platform="telegram", external_id="501")
if not GatewayAccount.objects.filter(key="telegram:ada").exists():
    GatewayAccountFactory(identity=Identity.objects.get(slug="ada"))
ends = [("suppressed",), ("sending", "failed"), ("sending", "partial"), ("sending", "sent")]
words = ["Not sent: it was older than 24 hours when its gateway came back.",
         "Forbidden: bot was blocked by the user", "Bad Request: chat not found", ""]
for states, sentence in zip(ends, words):
    turn = Turn.objects.get(pk=scenes.say("How are we doing?").turn_id)
    while not turn.deliveries.filter(kind="answer").exists():
        time.sleep(0.1)
    for state in states:
        turn.deliveries.filter(kind="answer").update(state=state, sentence=sentence, doubtful=state == "failed")
scenes.say("/nonsense")
Delivery.objects.filter(turn=None, account="telegram:ada").update(state="suppressed", sentence=words[0])
print("talk", Conversation.objects.get(account="telegram:ada").pk)
"""


@pytest.fixture(scope="module")
def talk(house: House) -> str:
    """The address of the conversation."""
    found = re.search(r"talk (\d+)", house.manage("shell", "-c", SCENE))
    assert found is not None
    return f"/chat/{found[1]}/"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_each_mark_can_be_read_by_everybody(visit: Visit, talk: str, width: int, theme: str) -> None:
    page = visit(talk, width=width, color_scheme=theme, bypass_csp=True)
    expect(page.locator(".delivery")).to_have_count(5)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_was_withheld_is_sent_by_a_press_and_then_waits(visit: Visit, talk: str) -> None:
    page = visit(talk)
    withheld = page.locator(".said--bot .delivery").first
    expect(withheld).to_contain_text("Withheld")
    withheld.get_by_role("button", name="Send now").click()
    expect(withheld).to_contain_text("Not delivered yet")
    expect(withheld.get_by_role("button")).to_have_count(0)


def test_after_the_press_the_page_looks_again_by_itself(visit: Visit, talk: str, house: House) -> None:
    page = visit(talk)
    failed = page.locator(".delivery").filter(has_text="Not delivered").filter(has_text="blocked")
    expect(failed).to_contain_text("marked as possibly repeated")
    number = failed.get_attribute("id").removeprefix("delivery-")
    failed.get_by_role("button", name="Send again").click()
    delivery = page.locator(f"#delivery-{number}")
    expect(delivery).to_contain_text("Not delivered yet")
    code = f"from conversations.models import Delivery; Delivery.objects.filter(pk={number}).update(state='sent')"
    house.manage("shell", "-c", code)
    expect(delivery).to_have_text("Delivered", timeout=60_000)


def test_without_scripts_the_press_leads_back(visit: Visit, talk: str) -> None:
    page = visit(talk, java_script_enabled=False)
    page.get_by_role("button", name="Send the rest").click()
    page.wait_for_url(f"**{talk}")
    expect(page.get_by_role("button", name="Send the rest")).to_have_count(0)
