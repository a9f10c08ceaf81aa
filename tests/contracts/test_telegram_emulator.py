"""Our Telegram emulator: it agrees with telegram-test-api wherever that one speaks, and keeps the Bot API's rules
where it is silent (confirmation by offset, one poller for a token, refusals, limits).

python-telegram-bot is the judge: both are asked through its `Bot`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions, Message
from telegram.error import BadRequest, ChatMigrated, Conflict, Forbidden, InvalidToken, NetworkError, RetryAfter

from tests.emulators.telegram import TelegramEmulator
from tests.emulators.telegram_people import BotHandle, Person, Said
from tests.emulators.telegram_test_api import TelegramTestApi

TOKEN = "1001:emulated"


@pytest.fixture(params=[TelegramEmulator, TelegramTestApi])
def either(request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param() as telegram:
        telegram.add_bot(TOKEN, "ada_bot")
        yield telegram


@pytest.fixture
def telegram() -> Iterator[TelegramEmulator]:
    with TelegramEmulator() as emulator:
        yield emulator


@pytest.fixture
def ada(telegram: TelegramEmulator) -> BotHandle:
    return telegram.add_bot(TOKEN, "ada_bot")


@pytest.fixture
def eva(telegram: TelegramEmulator) -> Person:
    return telegram.person(501, "Eva")


@pytest.fixture
async def bot(telegram: TelegramEmulator, ada: BotHandle) -> AsyncIterator[Bot]:
    async with connected(telegram) as client:
        yield client


@pytest.fixture
def greeted(eva: Person, ada: BotHandle) -> Said:
    return eva.send(ada, "Hello")


def connected(telegram: Any) -> Bot:
    return Bot(TOKEN, base_url=f"{telegram.url}/bot", base_file_url=f"{telegram.url}/file/bot")


def shape(value: Any) -> Any:
    """The JSON types of a value, so that two answers can be compared without their contents."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else type(value).__name__


def answers(telegram: Any, method: str, **parameters: Any) -> Any:
    return httpx.post(f"{telegram.url}/bot{TOKEN}/{method}", json=parameters).json()


class TestBothAgree:
    async def test_a_bot_learns_who_it_is(self, either: Any) -> None:
        async with connected(either) as bot:
            assert bot.bot.is_bot
            assert bot.bot.username

    async def test_a_text_arrives_with_its_sender_and_chat(self, either: Any) -> None:
        either.person(501, "Eva").send(either.add_bot(TOKEN, "ada_bot"), "Grüße 👋")
        async with connected(either) as bot:
            (update,) = await bot.get_updates(timeout=5)
        assert update.effective_message.text == "Grüße 👋"
        assert (update.effective_user.id, update.effective_user.first_name) == (501, "Eva")
        assert (update.effective_chat.id, update.effective_chat.type) == (501, "private")

    async def test_a_reply_is_answered_with_the_message_it_became(self, either: Any) -> None:
        either.person(501, "Eva").send(either.add_bot(TOKEN, "ada_bot"), "Hello")
        async with connected(either) as bot:
            first = await bot.send_message(501, "One")
            second = await bot.send_message(501, "Two", disable_notification=True)
        assert isinstance(first, Message)
        assert (second.text, second.chat_id) == ("Two", 501)
        assert second.message_id > first.message_id
        assert second.date >= first.date

    async def test_a_webhook_can_be_removed_where_none_is_set(self, either: Any) -> None:
        async with connected(either) as bot:
            assert await bot.delete_webhook()

    def test_answers_have_the_same_shape(self, telegram: TelegramEmulator, ada: BotHandle, eva: Person) -> None:
        with TelegramTestApi() as other:
            for api in (telegram, other):
                api.person(501, "Eva").send(api.add_bot(TOKEN, "ada_bot"), "Hello")
            ours, theirs = (shape(answers(api, "getUpdates")) for api in (telegram, other))
            del theirs["result"][0]["message"]["botToken"]  # their own bookkeeping
            assert contains(ours, theirs)
            ours, theirs = (shape(answers(api, "sendMessage", chat_id=501, text="Hi")) for api in (telegram, other))
            del theirs["result"]["chat_id"]  # the request, echoed
            assert contains(ours, theirs)
            ours, theirs = (shape(answers(api, "getMe")) for api in (telegram, other))
            assert contains(ours, theirs)

    def test_a_refusal_has_the_same_shape(self, telegram: TelegramEmulator, ada: BotHandle, greeted: Said) -> None:
        with TelegramTestApi() as other:
            ours, theirs = (answers(api, "deleteMessage", chat_id=501, message_id=99) for api in (telegram, other))
        assert shape(ours) == shape(theirs)
        assert (ours["error_code"], theirs["error_code"]) == (400, 400)
        assert ours["description"].startswith("Bad Request: ")
        assert theirs["description"].startswith("Bad Request: ")


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(name in whole and contains(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(contains(*pair) for pair in zip(whole, part, strict=True))
    return whole == part


class TestUpdates:
    async def test_a_poll_waits_until_somebody_speaks(self, bot: Bot, eva: Person, ada: BotHandle) -> None:
        poll = asyncio.create_task(bot.get_updates(timeout=30))
        await asyncio.to_thread(eva.telegram.wait_for_calls, "getUpdates")
        said = await asyncio.to_thread(eva.send, ada, "Hello")
        (update,) = await poll
        assert update.update_id == said.update_id

    async def test_an_update_comes_again_until_a_higher_offset_is_asked(self, bot: Bot, greeted: Said) -> None:
        (first,) = await bot.get_updates()
        (again,) = await bot.get_updates(offset=first.update_id)
        assert again.update_id == first.update_id
        assert await bot.get_updates(offset=first.update_id + 1) == ()
        times = await asyncio.to_thread(greeted.wait_confirmed)
        assert len(times.fetched) == 2

    async def test_a_limit_leaves_the_rest_for_later(self, bot: Bot, eva: Person, ada: BotHandle) -> None:
        for text in ("one", "two", "three"):
            eva.send(ada, text)
        assert [update.effective_message.text for update in await bot.get_updates(limit=2)] == ["one", "two"]
        (last,) = await bot.get_updates(offset=-1)
        assert last.effective_message.text == "three"

    async def test_a_second_poller_ends_the_first(self, telegram: TelegramEmulator, bot: Bot) -> None:
        first = asyncio.create_task(bot.get_updates(timeout=30))
        await asyncio.to_thread(telegram.wait_for_calls, "getUpdates")
        async with connected(telegram) as other:
            await other.get_updates()
        with pytest.raises(Conflict):
            await first

    async def test_kinds_that_are_not_asked_for_are_not_kept(self, bot: Bot, eva: Person, ada: BotHandle) -> None:
        await bot.get_updates(allowed_updates=["callback_query"])
        eva.send(ada, "Hello")
        assert await bot.get_updates() == ()

    async def test_an_update_can_be_made_to_come_twice(self, bot: Bot, greeted: Said) -> None:
        (update,) = await bot.get_updates()
        await bot.get_updates(offset=update.update_id + 1)
        await asyncio.to_thread(greeted.deliver_again)
        (again,) = await bot.get_updates(offset=update.update_id + 1)
        assert again.update_id == update.update_id

    async def test_an_edited_message_keeps_its_number(self, bot: Bot, eva: Person, greeted: Said) -> None:
        eva.edit(greeted, "Hello, Ada")
        update = (await bot.get_updates())[-1]
        assert update.edited_message.message_id == greeted.message_id
        assert update.edited_message.text == "Hello, Ada"

    async def test_a_pressed_button_is_answered_once(self, bot: Bot, telegram: Any, eva: Person, greeted: Said) -> None:
        keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("Yes", callback_data="yes")]])
        await bot.send_message(501, "Sure?", reply_markup=keyboard)
        eva.press(telegram.sent(501)[0], "yes")
        query = (await bot.get_updates())[-1].callback_query
        assert (query.data, query.message.text) == ("yes", "Sure?")
        assert await query.answer()
        with pytest.raises(BadRequest, match=r"(?i)query is too old"):
            await query.answer()

    async def test_a_document_can_be_fetched(self, bot: Bot, eva: Person, ada: BotHandle) -> None:
        eva.send_document(ada, "plan.txt", b"the plan", caption="read this")
        (update,) = await bot.get_updates()
        file = await bot.get_file(update.effective_message.document)
        assert await file.download_as_bytearray() == b"the plan"

    async def test_a_topic_of_a_group_is_named_both_ways(
        self, bot: Bot, telegram: Any, eva: Person, ada: BotHandle
    ) -> None:
        team = telegram.group(-1001, "Team", forum=True)
        eva.send(ada, "Here", group=team, thread=7)
        (update,) = await bot.get_updates()
        assert (update.effective_chat.type, update.effective_message.message_thread_id) == ("supergroup", 7)
        reply = await bot.send_message(team.id, "There", message_thread_id=7)
        assert reply.is_topic_message
        with pytest.raises(BadRequest, match=r"(?i)message thread not found"):
            await bot.send_message(team.id, "Nowhere", message_thread_id=1)


class TestRefusals:
    async def test_a_token_nobody_knows(self, telegram: TelegramEmulator) -> None:
        with pytest.raises(InvalidToken):
            await connected(telegram).initialize()

    @pytest.mark.parametrize(
        ("text", "options", "sentence"),
        [
            ("", {}, "message text is empty"),
            ("x" * 4097, {}, "message is too long"),
            ("👋" * 2049, {}, "message is too long"),
            ("<b>open", {"parse_mode": "HTML"}, 'can\'t find end tag corresponding to start tag "b"'),
            ("<b><i>x</b></i>", {"parse_mode": "HTML"}, "unmatched end tag at byte offset 7"),
            ("x</b>", {"parse_mode": "HTML"}, "unexpected end tag at byte offset 1"),
            ("<h1>x</h1>", {"parse_mode": "HTML"}, 'unsupported start tag "h1" at byte offset 0'),
            ("Hi", {"reply_to_message_id": 99}, "message to be replied not found"),
            ("Hi", {"chat_id": 999}, "chat not found"),
        ],
    )
    async def test_a_message_telegram_would_refuse(
        self, bot: Bot, greeted: Said, text: str, options: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(BadRequest, match=f"(?i){sentence}"):
            await bot.send_message(**{"chat_id": 501, "text": text} | options)

    async def test_markup_does_not_count_as_text(self, bot: Bot, greeted: Said) -> None:
        message = await bot.send_message(501, f"<b>{'x' * 4096}</b>", parse_mode="HTML")
        assert len(message.text) == 4096
        assert message.entities[0].type == "bold"

    async def test_a_person_who_never_wrote_or_does_not_want_to(self, bot: Bot, eva: Person, ada: BotHandle) -> None:
        with pytest.raises(Forbidden, match="can't initiate conversation"):
            await bot.send_message(501, "Hello?")
        eva.send(ada, "Hello")
        eva.block(ada)
        with pytest.raises(Forbidden, match="blocked"):
            await bot.send_message(501, "Hello?")

    async def test_an_edit_that_changes_nothing(self, bot: Bot, greeted: Said) -> None:
        message = await bot.send_message(501, "Same")
        with pytest.raises(BadRequest, match=r"(?i)message is not modified"):
            await message.edit_text("Same")
        assert (await message.edit_text("Other")).text == "Other"

    async def test_a_group_that_moved(self, bot: Bot, telegram: Any, eva: Person, ada: BotHandle) -> None:
        team = telegram.group(-77, "Team", kind="group")
        eva.send(ada, "Here", group=team)
        team.migrate(-10077)
        with pytest.raises(ChatMigrated) as moved:
            await bot.send_message(-77, "Hi")
        assert moved.value.new_chat_id == -10077
        assert (await bot.get_updates())[-1].effective_message.migrate_to_chat_id == -10077

    async def test_a_draft_is_for_private_chats(self, bot: Bot, telegram: Any, eva: Person, ada: BotHandle) -> None:
        team = telegram.group(-1001, "Team")
        eva.send(ada, "Here", group=team)
        eva.send(ada, "Here")
        assert await bot.send_message_draft(501, draft_id=1, text="Thinking")
        with pytest.raises(BadRequest):
            await bot.send_message_draft(team.id, draft_id=1, text="Thinking")
        assert telegram.sent() == []


class TestPlannedFaults:
    async def test_a_flood_says_how_long_to_wait(self, bot: Bot, telegram: Any, greeted: Said) -> None:
        telegram.fault("sendMessage", retry_after=7)
        with pytest.raises(RetryAfter) as flood:
            await bot.send_message(501, "Hi")
        assert flood.value._retry_after.total_seconds() == 7
        assert await bot.send_message(501, "Hi")

    @pytest.mark.parametrize(("drop", "arrived"), [("before", []), ("after", ["Hi"])])
    async def test_a_lost_connection_does_not_tell_whether_the_message_arrived(
        self, bot: Bot, telegram: Any, greeted: Said, drop: str, arrived: list[str]
    ) -> None:
        telegram.fault("sendMessage", drop=drop)
        with pytest.raises(NetworkError):
            await bot.send_message(501, "Hi")
        assert [message.text for message in telegram.sent(501)] == arrived

    async def test_a_server_error_hits_only_the_planned_chat(self, bot: Bot, telegram: Any, greeted: Said) -> None:
        telegram.fault("sendMessage", status=502, description="Bad Gateway", chat_id=7)
        assert await bot.send_message(501, "Hi")

    async def test_an_answer_can_be_held_back(self, bot: Bot, telegram: Any, eva: Person, greeted: Said) -> None:
        held = telegram.fault("sendMessage", hold=True)
        sending = asyncio.create_task(bot.send_message(501, "Hi"))
        await asyncio.to_thread(held.wait_hit)
        reply = await asyncio.to_thread(eva.wait_for_reply, greeted)
        assert not sending.done()
        held.release()
        assert (await sending).message_id == reply.message_id

    async def test_every_step_has_its_moment(self, bot: Bot, telegram: Any, eva: Person, greeted: Said) -> None:
        await bot.get_updates()
        await bot.send_message(501, "Hi", link_preview_options=LinkPreviewOptions(is_disabled=True))
        times, reply = greeted.times(), eva.wait_for_reply(greeted)
        assert times.enqueued < times.fetched[0] < reply.called < reply.stored
        assert telegram.calls("sendMessage")[0].called == reply.called
