"""Thirty thousand rows: every list of the console is paged by key, and its last page costs what its first one does."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from conversations import queries as conversation_queries
from conversations.models import Conversation, Delivery, Message, Turn
from execution import queries as execution_queries
from execution.models import ExecutionEvent
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from governance.models import KillOrder, StopLine
from governance.states import KillMode, KillScope
from identities.models import AccessToken, ChatAccount, Identity, Person
from tests.console.conftest import SignedIn
from tests.console.page import text_of
from tests.conversations import scenes
from tests.crowds import MANY, indexes_of, multiply, no_page_is_skipped_over, statements_of
from tests.factories.gateways import GatewayAccountFactory
from tests.factories.governance import KillOrderFactory, StopLineFactory
from tests.factories.identities import AccessTokenFactory, ChatAccountFactory

BY = Actor.system("test")
SHELL = 3  # session, person, kill orders


@pytest.fixture
def talk(ada: Identity, people: dict[str, Person]) -> Conversation:
    """A conversation of the operator with Ada on Telegram, with one answer in it."""
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    return scenes.answer(scenes.turn_of(scenes.say())).conversation


def costs(client: Client, address: str, number: int) -> None:
    """The page at this address takes so many queries, and none that skips over rows."""
    statements = statements_of(lambda: client.get(address))
    assert no_page_is_skipped_over(statements)
    assert len(statements) == number, "\n".join(statements)


class TestConversations:
    def test_the_list(self, operator: Client, talk: Conversation, people: dict[str, Person]) -> None:
        multiply(talk, chat_id="'c' || n", last_message_at="last_message_at - (n / 3) * interval '1 second'", title="n")
        costs(operator, "/chat/", SHELL + 3)
        deep = Conversation.objects.order_by("-last_message_at", "-pk")[MANY - 40]
        place = (deep.last_message_at, deep.pk)

        costs(operator, f"/chat/?before={deep.last_message_at.isoformat()},{deep.pk}", SHELL + 3)

        seen = [row.pk for row in conversation_queries.latest_conversations(people["operator"], before=place, limit=50)]
        assert len(seen) == 40
        assert max(Conversation.objects.filter(pk__in=seen).values_list("last_message_at", flat=True)) <= place[0]
        assert deep.pk not in seen

    def test_its_order_is_an_index_s_and_a_page_begins_where_the_last_one_ended(
        self, talk: Conversation, people: dict[str, Person]
    ) -> None:
        multiply(talk, chat_id="'c' || n", last_message_at="last_message_at - n * interval '1 second'")
        first = conversation_queries.latest_conversations(people["operator"]).select_related(None)
        assert "conversation_latest" in indexes_of(first)
        deep = conversation_queries.latest_conversations(people["operator"], before=(timezone.now(), talk.pk))
        assert "last_message_at" in indexes_of(deep.select_related(None))["conversation_latest"]

    def test_a_transcript(self, operator: Client, talk: Conversation) -> None:
        message = talk.messages.get(author="bot")
        multiply(message, text="'Answer ' || n")
        costs(operator, f"/chat/{talk.pk}/", SHELL + 6)
        costs(operator, f"/chat/{talk.pk}/?before={message.pk + 100}", SHELL + 5)
        costs(operator, f"/chat/{talk.pk}/messages/?after={message.pk + 100}", SHELL + 6)

    def test_a_short_transcript_among_long_ones(self, talk: Conversation) -> None:
        message = talk.messages.get(author="bot")
        multiply(message)
        scenes.say("Hello", chat_id="777")
        other = Conversation.objects.get(chat_id="777")
        multiply(other.messages.get(), 5_000)
        rows = Message.objects.filter(conversation=other, pk__lt=message.pk + 2 * MANY).order_by("-pk")[:31]
        assert "conversation_id" in indexes_of(rows)["message_recent"]

    def test_a_transcript_with_thousands_of_turns(self, operator: Client, talk: Conversation) -> None:
        turn = Turn.objects.get()
        multiply(turn, execution_id="NULL", session_id="NULL")
        multiply(talk.messages.get(author="bot"), turn_id=f"{turn.pk}")
        costs(operator, f"/chat/{talk.pk}/", SHELL + 6)
        costs(operator, "/chat/", SHELL + 3)

    def test_a_transcript_of_which_nothing_arrived(self, operator: Client, talk: Conversation, ada: Identity) -> None:
        GatewayAccountFactory(identity=ada)
        scenes.say("/nonsense")
        row = Delivery.objects.get(turn=None)
        Delivery.objects.filter(pk=row.pk).update(state="suppressed", sentence="Not sent: too old.")
        multiply(row, inbound_id="NULL", created_at="created_at + n * interval '1 second'")

        costs(operator, f"/chat/{talk.pk}/", SHELL + 7)

        page = operator.get(f"/chat/{talk.pk}/").context["page"]
        assert sum(len(item.undelivered) for item in page.items) == conversation_queries.NOTICES
        rows = Delivery.objects.filter(
            account=row.account, chat_id=row.chat_id, turn=None, state="suppressed", created_at__gte=row.created_at
        ).filter(state__in=["suppressed", "failed", "partial", "unknown"])
        assert "created_at" in indexes_of(rows.order_by("created_at")[:100])["delivery_undelivered"]

    def test_a_turn_that_wrote_thousands_of_events(self, operator: Client, talk: Conversation) -> None:
        execution = scenes.running(scenes.turn_of(scenes.say("Again")))
        event = ExecutionEvent.objects.create(execution=execution, sequence=1, kind="text", payload={"text": "word "})
        multiply(event, sequence="n + 1")
        costs(operator, f"/chat/{talk.pk}/", SHELL + 7)
        later = ExecutionEvent.objects.filter(execution=execution, sequence__gt=MANY - 100).order_by("sequence")[:500]
        assert "sequence" in indexes_of(later)["one_event_per_sequence"]
        assert len(execution_queries.events_after(execution.pk, MANY - 100)) == 101


class TestBots:
    def test_the_fleet_and_what_offers_bots(self, signed_in: SignedIn, ada: Identity) -> None:
        multiply(ada, slug="'bot-' || n", name="'Bot ' || lpad(n::text, 6, '0')")
        operator = signed_in("operator")
        costs(operator, "/fleet/", SHELL + 8)
        costs(operator, f"/fleet/?after={ada.pk + MANY - 100}", SHELL + 7)
        costs(operator, "/fleet/?q=Bot+0299", SHELL + 7)
        costs(operator, "/kill-switch/", SHELL + 8)
        assert len(operator.get("/kill-switch/").content) < 60_000
        costs(operator, "/chat/", SHELL + 2)
        assert len(operator.get("/chat/").content) < 60_000

    def test_one_that_is_not_offered_can_be_stopped_all_the_same(self, operator: Client, ada: Identity) -> None:
        multiply(ada, slug="'bot-' || n", name="'Abel ' || lpad(n::text, 6, '0')")
        assert 'value="ada"' not in operator.get("/kill-switch/").content.decode()
        assert "/kill-switch/?bot=ada" in operator.get("/fleet/ada/").content.decode()
        assert '<option value="ada" selected' in operator.get("/kill-switch/?bot=ada").content.decode()
        operator.post("/kill-switch/stop/", {"scope": "ada", "mode": "stop", "reason": "Drill"})
        assert KillOrder.objects.get().scope_id == "ada"


class TestKillOrders:
    def test_the_receipts_and_the_lines_of_one(self, operator: Client, ada: Identity) -> None:
        order = KillOrderFactory(state="lifted", lifted_at=timezone.now(), lifted_by="eva", lift_reason="over")
        multiply(order, epoch="epoch + n")
        costs(operator, "/kill-switch/", SHELL + 9)
        costs(operator, f"/kill-switch/?before={order.pk + 100}", SHELL + 9)
        line = StopLineFactory(order=order, quiet_at=timezone.now(), killed=True)
        multiply(line, subject="n + 100000")
        costs(operator, f"/kill-switch/receipts/{order.pk}/", SHELL + 5)
        costs(operator, f"/kill-switch/receipts/{order.pk}/?after={line.pk + MANY - 150}", SHELL + 5)

    def test_a_receipt_on_which_thousands_are_still_alive(self, operator: Client, ada: Identity) -> None:
        order = KillOrderFactory()
        multiply(StopLineFactory(order=order), subject="n + 100000")
        costs(operator, f"/kill-switch/receipts/{order.pk}/", SHELL + 5)
        answer = operator.get(f"/kill-switch/receipts/{order.pk}/")
        assert "30,001 things have not stopped" in text_of(answer)
        assert len(answer.context["receipt"].alive) == 100
        assert StopLine.objects.count() == MANY + 1

    def test_thousands_in_force(self, operator: Client, ada: Identity) -> None:
        order = governance_actions.stop(
            scope=KillScope.CONVERSATION, scope_id="1", mode=KillMode.DRAIN, reason="Test", by=BY
        )
        multiply(order, epoch="epoch + n", scope_id="n + 1")
        costs(operator, "/kill-switch/", SHELL + 9)
        first = operator.get("/kill-switch/")
        assert len(first.context["view"].in_force) == 5
        assert "99+ held" in text_of(first)
        following = first.context["held_pager"]["next_url"]
        costs(operator, following, SHELL + 9)
        assert first.context["view"].in_force[-1].id - 1 == operator.get(following).context["view"].in_force[0].id

    def test_what_holds_the_whole_fleet_stands_on_top_however_much_came_after_it(
        self, operator: Client, ada: Identity
    ) -> None:
        whole = governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="Whole", by=BY)
        one = governance_actions.stop(
            scope=KillScope.CONVERSATION, scope_id="1", mode=KillMode.DRAIN, reason="Test", by=BY
        )
        multiply(one, 40, epoch="epoch + n", scope_id="n + 1")
        first = operator.get("/kill-switch/")
        following = operator.get(first.context["held_pager"]["next_url"])
        for page in (first, following):
            assert page.context["view"].in_force[0].id == whole.pk
            assert "Fleet: Stopped" in text_of(page)
        shown = [[order.id for order in page.context["view"].in_force[1:]] for page in (first, following)]
        assert shown[0][-1] - 1 == shown[1][0]


class TestOnesOwnPage:
    def test_chat_accounts_and_tokens(self, operator: Client, people: dict[str, Person]) -> None:
        mine = {"person": people["operator"]}
        multiply(ChatAccountFactory(**mine), external_id="n + 100000")
        multiply(AccessTokenFactory(**mine), token_hash="md5(n::text)", name="'Token ' || n")
        costs(operator, "/account/", SHELL + 2)
        first = operator.get("/account/")
        assert "Token 30000" in text_of(first)
        assert len(first.content) < 60_000

        for name in ("chats_pager", "tokens_pager"):
            costs(operator, first.context[name]["next_url"], SHELL + 2)

        last_chat = ChatAccount.objects.order_by("-pk")[5].pk
        first_token = AccessToken.objects.order_by("pk")[5].pk
        both = operator.get(f"/account/?chats={last_chat}&tokens={first_token}")
        assert (len(both.context["page"].chat_accounts), len(both.context["page"].tokens)) == (5, 5)
        assert both.context["tokens_pager"] == {"first_url": f"/account/?chats={last_chat}", "next_url": ""}

    def test_the_bots_accounts(self, signed_in: SignedIn, ada: Identity) -> None:
        account = GatewayAccountFactory(identity=ada)
        multiply(ada, slug="'bot-' || n")
        multiply(account, key="'telegram:bot-' || n", identity_id=f"{ada.pk} + n", token_hash="md5(n::text)")
        admin = signed_in("admin")
        costs(admin, "/account/", SHELL + 5)
        costs(admin, f"/account/?after={ada.pk + MANY - 100}", SHELL + 5)
