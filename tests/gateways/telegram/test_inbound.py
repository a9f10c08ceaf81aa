"""What Telegram tells a bot, in payloads as Telegram sends them, and what becomes of each in the unified format."""

import datetime as dt
import json
from pathlib import Path

import pytest
from telegram import Update

from gateways.telegram.bot import Connections
from gateways.telegram.inbound import Heard, read
from gateways.telegram.line import Line

PAYLOADS = Path(__file__).parent / "payloads"


@pytest.fixture
def line():
    return Line("telegram:ada", "ada", "hash", Connections().bot("1001:token"), "ada_bot")


@pytest.fixture
def hear(line):
    def hear(name: str) -> Heard | None:
        payload = json.loads((PAYLOADS / f"{name}.json").read_text())
        return read(Update.de_json(payload, line.bot), line)

    return hear


def test_a_private_message_is_taken_over_whole(hear):
    message = hear("text").message
    assert message.account == "telegram:ada"
    assert message.identity_slug == "ada"
    assert message.text == "Which invoices are due this week?"
    assert (message.chat_id, message.thread_id, message.message_id) == ("501", "", "11")
    assert (message.sender_id, message.sender_name) == ("501", "Eva Lang")
    assert message.platform_at == dt.datetime(2026, 11, 22, 20, 0, tzinfo=dt.UTC)
    assert message.person_id is None


def test_the_sender_is_known_by_number_and_never_by_name(hear):
    assert hear("text").message.sender_id == "501"
    assert "evalang" not in repr(hear("text").message)


def test_an_event_has_one_id_for_ever(hear):
    """Bot, update and message: update ids alone start anew after a quiet week."""
    assert hear("text").message.event_id == "1001:814000001:11"


def test_the_same_update_for_another_bot_is_another_event(hear, line):
    first = hear("text").message.event_id
    line.bot = Connections().bot("1002:token")
    assert hear("text").message.event_id != first


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("text_with_emoji", "👩‍🚀 Guten Morgen – alles grün? 🟢"),
        ("command", "/pair K7QM2XNP"),
        ("start_from_link", "/start ref"),
        ("forwarded", "Please check this offer."),
        ("group_mention", "who is on call?"),
        ("group_mention_after_emoji", "👩‍🚀🚀 hey @ada_bot who is on call?"),
        ("group_command", "/status@ada_bot"),
        ("group_reply_to_bot", "and tomorrow?"),
        ("group_text_mention", "Ada, who is on call?"),
        ("from_the_future", "still understood"),
    ],
)
def test_what_is_said_to_the_bot_is_heard(hear, payload, text):
    heard = hear(payload)
    assert heard.message.text == text
    assert heard.refusal is None


@pytest.mark.parametrize(
    "payload",
    [
        "group_chatter",
        "group_other_bot",
        "group_command_unaddressed",
        "group_reply_to_person",
        "group_member_joined",
        "group_migrated",
        "from_other_bot",
        "on_behalf_of_channel",
        "live_location_moved",
        "button_pressed",
        "bot_blocked",
    ],
)
def test_what_is_not_said_to_the_bot_is_left_alone(hear, payload):
    assert hear(payload) is None


def test_a_topic_is_a_thread_of_its_own(hear):
    assert hear("group_topic").message.thread_id == "7"
    assert hear("group_topic").message.text == "summary please"


def test_a_chain_of_replies_is_no_topic(hear):
    assert hear("group_thread_without_topics").message.thread_id == ""


def test_a_caption_is_answered_and_the_bot_learns_what_it_cannot_see(hear):
    heard = hear("photo_with_caption")
    assert heard.refusal is None
    assert heard.message.text.startswith("What does this chart show?\n\n[With this message came a photo")
    assert heard.message.media == [{"kind": "photo", "file_id": "AgACAgIAAxkBAAIBQ2d", "file_size": 84210}]


def test_a_mention_in_a_caption_counts(hear):
    assert hear("group_caption_mention").message.text.startswith("what is this?")


@pytest.mark.parametrize(
    ("payload", "name"),
    [("sticker", "sticker"), ("voice", "voice message"), ("document", "file"), ("location", "location")],
)
def test_content_without_words_is_politely_refused(hear, payload, name):
    heard = hear(payload)
    assert heard.refusal.code == "unsupported_content"
    assert name in heard.refusal.sentence
    assert "come later" in heard.refusal.sentence


def test_a_file_is_described_for_later(hear):
    assert hear("document").message.media == [
        {"kind": "document", "file_id": "BQACAgIAAxkBAAIBRmc", "file_name": "report.pdf", "file_size": 482113}
    ]


def test_an_edit_is_kept_and_declined(hear):
    heard = hear("edited")
    assert heard.refusal.code == "edited"
    assert heard.message.text == "Which invoices are due next week?"
    assert heard.message.event_id != hear("text").message.event_id


def test_before_its_name_is_known_a_bot_is_not_mentioned_by_accident(hear, line):
    line.username = ""
    assert hear("group_mention") is None
    assert hear("group_reply_to_bot") is not None
