"""From a person's message at Telegram to the answer on their screen: the service, the real database, a Telegram that long-polls."""

from __future__ import annotations

import pytest

from conversations import actions as conversation_actions
from conversations.models import Conversation, Delivery, InboundMessage, Turn
from conversations.states import DeliveryKind, DeliveryState, InboundState
from fleet.kernel.actors import Actor
from gateways import actions
from gateways.models import GatewayAccount, TokenLease
from gateways.states import AccountState
from gateways.telegram import poller, sender
from tests.conversations import scenes
from tests.gateways.running import GatewayInThread, until

BY = Actor.system("test")
pytestmark = pytest.mark.usefixtures("gateway")


def turn_about(text: str) -> Turn:
    """The turn that this message became, once the gateway has taken it in."""
    return until(lambda: Turn.objects.filter(inbound__text=text, execution__isnull=False).first())


def deliver(text: str, **fields: object) -> Delivery:
    """Something for Eva lands in the outbox."""
    place = {"account": "telegram:ada", "chat_id": "501", "kind": DeliveryKind.NOTICE, "by": BY}
    return conversation_actions.deliver(**{**place, "text": text, **fields})


def wait_for_state(delivery: Delivery, state: DeliveryState) -> Delivery:
    return until(lambda: Delivery.objects.filter(pk=delivery.pk, state=state).first())


def texts(telegram, chat_id: int | None = None) -> list[str]:
    return [message.text for message in telegram.sent(chat_id)]


def test_a_message_becomes_a_turn_and_its_answer_a_message(telegram, ada_on_telegram, eva_talks):
    said = eva_talks.send(ada_on_telegram, "Hello Ada")
    scenes.answer(turn_about("Hello Ada"), "Good *day*, Eva.")
    reply = eva_talks.wait_for_reply(said)

    assert reply.text == "Good day, Eva."
    assert reply.payload["entities"] == [{"type": "italic", "offset": 5, "length": 3}]
    assert InboundMessage.objects.get().text == "Hello Ada"
    delivery = until(lambda: Delivery.objects.filter(state=DeliveryState.SENT).first())
    assert delivery.receipts == [str(reply.message_id)]


def test_telegram_is_told_after_the_row_is_there(ada_on_telegram, eva_talks):
    eva_talks.send(ada_on_telegram, "Hello").wait_confirmed()
    assert InboundMessage.objects.filter(text="Hello").exists()


def test_an_update_that_comes_twice_is_answered_once(telegram, ada_on_telegram, eva_talks):
    said = eva_talks.send(ada_on_telegram, "/help")
    eva_talks.wait_for_reply(said)
    said.deliver_again()
    until(lambda: len(said.times().fetched) == 2)
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/status"))
    assert InboundMessage.objects.count() == 2
    assert len(telegram.sent()) == 2


def test_a_stranger_learns_how_to_be_known(telegram, ada_on_telegram):
    stranger = telegram.person(666, "Mallory")
    reply = stranger.wait_for_reply(stranger.send(ada_on_telegram, "Hello"))
    assert "/pair" in reply.text
    assert not Turn.objects.exists()


def test_messages_of_one_chat_keep_their_order(ada_on_telegram, eva_talks):
    for number in range(8):
        eva_talks.send(ada_on_telegram, f"message {number}")
    until(lambda: InboundMessage.objects.filter(state=InboundState.TAKEN).count() == 8)
    said = list(Conversation.objects.get().messages.order_by("pk").values_list("text", flat=True))
    assert said == [f"message {number}" for number in range(8)]


def test_a_bot_that_works_is_seen_typing_until_it_answers(telegram, ada_on_telegram, eva_talks):
    said = eva_talks.send(ada_on_telegram, "Think hard")
    [typing, *_] = telegram.wait_for_calls("sendChatAction")
    assert typing.parameters["action"] == "typing"
    assert int(typing.parameters["chat_id"]) == 501
    scenes.answer(turn_about("Think hard"))
    assert eva_talks.wait_for_reply(said).text == "Good day."


def test_an_answer_does_not_wait_for_typing(telegram, ada_on_telegram, eva_talks):
    typing = telegram.fault("sendChatAction", hold=True, times=100)
    said = eva_talks.send(ada_on_telegram, "Think hard")
    typing.wait_hit()
    scenes.answer(turn_about("Think hard"))
    assert eva_talks.wait_for_reply(said).text == "Good day."
    typing.release()


def test_a_sticker_and_an_edit_get_an_honest_word_and_leave_a_row(telegram, ada_on_telegram, eva_talks):
    sticker = {"sticker": {"file_id": "s", "file_unique_id": "s", "type": "regular", "width": 1, "height": 1,
                           "is_animated": False, "is_video": False}}  # fmt: skip
    said = eva_talks.send(ada_on_telegram, None, extra=sticker)
    assert "sticker" in eva_talks.wait_for_reply(said).text
    first = eva_talks.send(ada_on_telegram, "/help")
    eva_talks.edit(first, "/status")
    assert "edit was not taken over" in eva_talks.wait_for_reply(first, contains="edit").text
    assert InboundMessage.objects.filter(state=InboundState.REFUSED).count() == 2


def test_a_pressed_button_is_acknowledged(telegram, ada_on_telegram, eva_talks):
    message = eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/help"))
    eva_talks.press(message, "approve:1").wait_confirmed()
    [call] = telegram.wait_for_calls("answerCallbackQuery")
    assert call.status == 200


class TestInAGroup:
    @pytest.fixture
    def team(self, telegram):
        return telegram.group(-100500, "Team", forum=True)

    def mention(self, text: str) -> dict:
        return {"entities": [{"type": "mention", "offset": text.index("@"), "length": len("@ada_bot")}]}

    def test_only_what_is_said_to_the_bot_counts(self, ada_on_telegram, eva_talks, team):
        eva_talks.send(ada_on_telegram, "Lunch?", group=team).wait_confirmed()
        text = "@ada_bot are you there?"
        eva_talks.send(ada_on_telegram, text, group=team, extra=self.mention(text))
        turn_about("are you there?")
        assert InboundMessage.objects.count() == 1

    def test_the_answer_goes_into_the_topic_and_names_its_question(self, telegram, ada_on_telegram, eva_talks, team):
        text = "@ada_bot are you there?"
        said = eva_talks.send(ada_on_telegram, text, group=team, thread=7, extra=self.mention(text))
        scenes.answer(turn_about("are you there?"), "Yes.")
        reply = eva_talks.wait_for_reply(said)
        assert reply.payload["message_thread_id"] == 7
        assert reply.payload["reply_to_message"]["message_id"] == said.message_id

    def test_the_general_topic_has_no_number_on_the_way_out(self, telegram, ada_on_telegram, eva_talks, team):
        delivery = deliver("To all", chat_id=str(team.id), thread_id="1")
        wait_for_state(delivery, DeliveryState.SENT)
        assert "message_thread_id" not in telegram.calls("sendMessage")[-1].parameters

    def test_a_topic_that_is_gone_does_not_swallow_the_answer(self, telegram, team):
        delivery = deliver("Still here", chat_id=str(team.id), thread_id="99")
        wait_for_state(delivery, DeliveryState.SENT)
        assert texts(telegram, team.id) == ["Still here"]

    def test_a_group_that_became_a_supergroup_is_followed(self, telegram, team):
        team.migrate(-100600)
        first, second = deliver("one", chat_id=str(team.id)), deliver("two", chat_id=str(team.id))
        wait_for_state(first, DeliveryState.SENT)
        wait_for_state(second, DeliveryState.SENT)
        assert texts(telegram, -100600) == ["one", "two"]


class TestTheOutbox:
    @pytest.fixture(autouse=True)
    def started(self, gateway, ada_on_telegram, eva_talks):
        eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))

    def test_a_long_answer_comes_in_numbered_parts_with_a_receipt_for_each(self, telegram):
        delivery = deliver("word " * 2000)
        row = wait_for_state(delivery, DeliveryState.SENT)
        parts = telegram.sent()[1:]
        assert [part.text[-5:] for part in parts] == ["(1/3)", "(2/3)", "(3/3)"]
        assert row.receipts == [str(part.message_id) for part in parts]

    def test_after_a_refused_part_the_sending_goes_on_where_it_stopped(self, telegram):
        telegram.fault("sendMessage", status=429, retry_after=1)
        delivery = deliver("word " * 2000)
        wait_for_state(delivery, DeliveryState.SENT)
        assert [text[-5:] for text in texts(telegram)[1:]] == ["(1/3)", "(2/3)", "(3/3)"]

    def test_a_part_in_doubt_is_repeated_alone_and_with_a_mark(self, telegram, monkeypatch):
        real, letters = sender.Letter.of, []

        def second_letter_breaks(*args, **kwargs):
            letters.append(args)
            if len(letters) == 2:
                telegram.fault("sendMessage", drop="after")
            return real(*args, **kwargs)

        monkeypatch.setattr(sender.Letter, "of", second_letter_breaks)
        delivery = deliver("word " * 2000)
        wait_for_state(delivery, DeliveryState.UNKNOWN)
        conversation_actions.sweep()
        wait_for_state(delivery, DeliveryState.SENT)
        ends = [(text.startswith("(possibly repeated)"), text[-5:]) for text in texts(telegram)[1:]]
        assert ends == [(False, "(1/3)"), (False, "(2/3)"), (True, "(2/3)"), (False, "(3/3)")]

    @pytest.mark.parametrize("fault", [{"drop": "before"}, {"status": 502}], ids=["hung up", "bad gateway"])
    def test_without_an_answer_the_message_is_in_doubt_and_comes_again_marked(self, telegram, fault):
        telegram.fault("sendMessage", **fault)
        delivery = deliver("Important")
        wait_for_state(delivery, DeliveryState.UNKNOWN)
        conversation_actions.sweep()
        wait_for_state(delivery, DeliveryState.SENT)
        assert texts(telegram)[1:] == ["(possibly repeated)\nImportant"]

    def test_html_that_telegram_refuses_is_sent_as_plain_text(self, telegram):
        telegram.fault("sendMessage", status=400, description="Bad Request: can't parse entities: unclosed tag")
        wait_for_state(deliver("**so** it goes"), DeliveryState.SENT)
        assert texts(telegram)[1:] == ["**so** it goes"]

    def test_who_blocked_the_bot_gets_nothing_more(self, ada_on_telegram, eva_talks):
        eva_talks.block(ada_on_telegram)
        row = wait_for_state(deliver("Are you there?"), DeliveryState.FAILED)
        assert "blocked" in row.sentence

    def test_a_chat_that_does_not_exist_is_no_endless_story(self):
        row = wait_for_state(deliver("Hello?", chat_id="999"), DeliveryState.FAILED)
        assert "chat not found" in row.sentence.lower()

    def test_one_flooded_chat_does_not_hold_another(self, telegram, ada_on_telegram):
        max_talks = telegram.person(502, "Max")
        greeting = max_talks.send(ada_on_telegram, "/start")
        max_talks.wait_for_reply(greeting)
        telegram.fault("sendMessage", status=429, retry_after=300, chat_id=501, times=100)
        held = deliver("to Eva")
        other = deliver("to Max", chat_id="502")
        wait_for_state(other, DeliveryState.SENT)
        until(lambda: Delivery.objects.get(pk=held.pk).sentence)
        assert Delivery.objects.get(pk=held.pk).state == DeliveryState.PENDING

    def test_a_chat_gets_its_messages_in_order(self, telegram):
        last = [deliver(f"notice {number}") for number in range(4)][-1]
        wait_for_state(last, DeliveryState.SENT)
        assert texts(telegram)[1:] == [f"notice {number}" for number in range(4)]

    def test_what_is_older_than_a_day_is_not_sent(self, telegram):
        Delivery.objects.filter(state=DeliveryState.PENDING).delete()
        with_age = Delivery(account="telegram:ada", chat_id="501", kind=DeliveryKind.NOTICE, text="old news")
        with_age.created_at = "2020-01-01T00:00:00Z"
        with_age.save()
        wait_for_state(deliver("news", chat_id="501"), DeliveryState.PENDING)
        conversation_actions.sweep()
        wait_for_state(with_age, DeliveryState.SUPPRESSED)
        until(lambda: texts(telegram)[1:] == ["news"])

    def test_answers_wait_while_the_bots_are_stopped(self, telegram, eva_talks, ada_on_telegram):
        from governance import actions as governance_actions

        order = governance_actions.stop(scope="fleet", scope_id="", mode="stop", reason="drill", by=BY)
        answer = deliver("the answer", kind=DeliveryKind.PROGRESS)
        eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/help"))
        assert Delivery.objects.get(pk=answer.pk).state == DeliveryState.PENDING
        governance_actions.lift(order=order, reason="drill over", by=BY)
        wait_for_state(answer, DeliveryState.SENT)


class TestTokens:
    def test_a_refused_token_stops_only_its_bot(self, telegram, ada_on_telegram, eva_talks):
        bad = actions.set_token(identity=scenes.bot("bob"), platform="telegram", token="1002:bad", by=BY)
        row = until(lambda: GatewayAccount.objects.filter(pk=bad.pk, state=AccountState.REJECTED).first())
        assert "BotFather" in row.sentence
        eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/help"))

    def test_a_new_token_is_picked_up_without_a_restart(self, telegram, ada, ada_on_telegram, eva_talks):
        new = telegram.add_bot("1003:new", "ada_new_bot")
        actions.set_token(identity=ada, platform="telegram", token=new.token, by=BY)
        eva_talks.wait_for_reply(eva_talks.send(new, "/help"))
        assert until(lambda: GatewayAccount.objects.get().username == "ada_new_bot")

    def test_a_token_that_moves_to_another_bot_is_never_polled_twice(self, telegram, ada, ada_on_telegram, eva_talks):
        bob = scenes.bot("bob", provider_chain=["mock"])
        actions.set_token(identity=ada, platform="telegram", token="1003:other", by=BY)
        moved = actions.set_token(identity=bob, platform="telegram", token=ada_on_telegram.token, by=BY)
        until(lambda: GatewayAccount.objects.get(pk=moved.pk).username)  # until then Ada answers what is asked
        reply = eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/help"))
        assert "I am Bob" in reply.text
        assert 409 not in {call.status for call in telegram.calls("getUpdates")}

    def test_an_account_switched_off_is_no_longer_polled(self, telegram, ada_on_telegram, eva_talks):
        account = GatewayAccount.objects.get()
        actions.switch_off(account, by=BY)
        until(lambda: not TokenLease.objects.exists())
        said = eva_talks.send(ada_on_telegram, "Waiting at Telegram")
        assert not said.times().fetched
        actions.activate(account, by=BY)
        said.wait_confirmed()
        assert turn_about("Waiting at Telegram")


class TestTroubleWhilePolling:
    def test_another_poller_is_named_and_waited_out(self, telegram, ada_on_telegram, eva_talks, monkeypatch):
        assert poller.CONFLICT_SECONDS > poller.POLL_SECONDS
        monkeypatch.setattr(poller, "CONFLICT_SECONDS", 0.5)
        telegram.fault(
            "getUpdates", status=409, description="Conflict: terminated by other getUpdates request", times=2
        )
        eva_talks.send(ada_on_telegram, "/help").wait_confirmed()
        row = until(lambda: GatewayAccount.objects.filter(sentence__contains="Another program").first())
        assert row.state == AccountState.ACTIVE
        eva_talks.send(ada_on_telegram, "/help").wait_confirmed()

    @pytest.mark.parametrize(
        "fault",
        [{"status": 500}, {"status": 429, "retry_after": 1}, {"drop": "before"}, {"drop": "after"}],
        ids=["server error", "flood", "hung up before", "hung up after"],
    )
    def test_nothing_is_lost_and_nothing_comes_twice(self, telegram, ada_on_telegram, eva_talks, fault):
        telegram.fault("getUpdates", **fault)
        first = eva_talks.send(ada_on_telegram, "one")
        second = eva_talks.send(ada_on_telegram, "two")
        first.wait_confirmed()
        second.wait_confirmed()
        assert sorted(InboundMessage.objects.values_list("text", flat=True)) == ["one", "two"]

    def test_an_update_that_cannot_be_read_does_not_hold_the_others(self, ada_on_telegram, eva_talks):
        eva_talks.send(ada_on_telegram, None, extra={"text": "broken", "entities": [{"type": "mention"}]})
        eva_talks.send(ada_on_telegram, "sound").wait_confirmed()
        assert list(InboundMessage.objects.values_list("text", flat=True)) == ["sound"]


def test_only_the_named_bots_are_served(telegram, ada_on_telegram, gateway, settings):
    bob = scenes.bot("bob")
    actions.set_token(identity=bob, platform="telegram", token="1002:bob", by=BY)
    telegram.add_bot("1002:bob", "bob_bot")
    until(lambda: any(call.token == "1002:bob" for call in telegram.calls("getUpdates")))
    gateway.stop()
    before = len(telegram.calls("getUpdates"))
    with GatewayInThread(only=("bob",)):
        until(lambda: len(telegram.calls("getUpdates")) > before)
        assert {call.token for call in telegram.calls("getUpdates")[before:]} == {"1002:bob"}
