"""Lists over the API: paged by id, and bounded."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations import events
from conversations.models import Conversation, Message
from conversations.states import BusyMode
from fleet.kernel.models import JournalEntry
from identities.models import Identity, Person
from tests.api.conftest import Call, gateway_token, token_of


@pytest.fixture
def talk(ada: Identity, eva: Person) -> Conversation:
    """A conversation of Eva's with seven messages."""
    row = Conversation.objects.create(account="api:ada", chat_id=f"{eva.pk}:", identity=ada, person=eva)
    Message.objects.bulk_create(Message(conversation=row, author="person", text=f"Message {n}") for n in range(7))
    return row


def test_messages_come_oldest_first_from_the_end_backwards(call: Call, talk: Conversation, eva: Person) -> None:
    path, token = f"/api/v1/conversations/{talk.pk}/messages", token_of(eva)

    last = call("GET", f"{path}?limit=3", token=token).json()
    before = call("GET", f"{path}?limit=3&before={last['before']}", token=token).json()
    first = call("GET", f"{path}?limit=3&before={before['before']}", token=token).json()

    assert [row["text"] for row in first["results"] + before["results"] + last["results"]] == [
        f"Message {n}" for n in range(7)
    ]
    assert first["before"] is None


def test_conversations_come_newest_first(call: Call, talk: Conversation, ada: Identity, eva: Person) -> None:
    newer = Conversation.objects.create(account="api:ada", chat_id="2", identity=ada, person=eva)

    page = call("GET", "/api/v1/conversations?limit=1", token=token_of(eva)).json()
    following = call("GET", f"/api/v1/conversations?limit=1&before={page['before']}", token=token_of(eva)).json()

    assert [row["id"] for row in page["results"] + following["results"]] == [newer.pk, talk.pk]


def test_people_without_the_right_to_see_the_fleet_see_their_own_only(call: Call, talk: Conversation) -> None:
    stranger = token_of(Person.objects.create_user(username="stranger", roles=[]))

    assert call("GET", "/api/v1/conversations", token=stranger).json()["results"] == []
    assert call("GET", f"/api/v1/conversations/{talk.pk}/", token=stranger).status_code == 404
    assert call("GET", f"/api/v1/conversations/{talk.pk}/messages", token=stranger).status_code == 404


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=many", "before=0", "before=x", "before=9999999999999999999"]
)
def test_a_page_that_cannot_be_is_refused(call: Call, talk: Conversation, eva: Person, query: str) -> None:
    for path in ("/api/v1/conversations", f"/api/v1/conversations/{talk.pk}/messages"):
        answer = call("GET", f"{path}?{query}", token=token_of(eva))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_a_page_of_thirty_thousand_messages_costs_a_handful_of_queries(
    call: Call, talk: Conversation, eva: Person
) -> None:
    Message.objects.bulk_create(
        (Message(conversation=talk, author="person", text="More") for _ in range(30_000)), batch_size=5000
    )
    token = token_of(eva)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        answer = call("GET", f"/api/v1/conversations/{talk.pk}/messages?limit=100", token=token)

    assert len(answer.json()["results"]) == 100
    assert len(queries) == 4, [query["sql"] for query in queries]  # token, its note of use, conversation, messages


class TestChangingHowAConversationTreatsMessages:
    """`busy_mode` goes through the same action as /busy and the console."""

    @pytest.mark.parametrize("mode", BusyMode.values)
    def test_whoever_speaks_there_changes_it_and_the_journal_says_who(
        self, call: Call, talk: Conversation, eva: Person, mode: str
    ) -> None:
        Conversation.objects.update(busy_mode="followup" if mode == "collect" else "collect")

        answer = call("PATCH", f"/api/v1/conversations/{talk.pk}/", {"busy_mode": mode}, token=token_of(eva))

        assert (answer.status_code, answer.json()["id"], answer.json()["busy_mode"]) == (200, talk.pk, mode)
        assert Conversation.objects.get(pk=talk.pk).busy_mode == mode
        entry = JournalEntry.objects.get(event=events.BUSY_MODE_SET)
        assert (entry.actor_name, entry.subject_id, entry.details["to"]) == (eva.username, str(talk.pk), mode)

    def test_the_mode_it_has_already_is_no_change(self, call: Call, talk: Conversation, eva: Person) -> None:
        answer = call("PATCH", f"/api/v1/conversations/{talk.pk}/", {"busy_mode": "collect"}, token=token_of(eva))
        assert (answer.status_code, answer.json()["busy_mode"]) == (200, "collect")
        assert not JournalEntry.objects.filter(event=events.BUSY_MODE_SET).exists()

    @pytest.mark.parametrize(
        "body",
        [{"busy_mode": "quickly"}, {"busy_mode": ""}, {"busy": "steer"}, {"busy_mode": "steer", "title": "x"}, {}],
    )
    def test_anything_else_is_refused_and_changes_nothing(
        self, call: Call, talk: Conversation, eva: Person, body: dict[str, str]
    ) -> None:
        answer = call("PATCH", f"/api/v1/conversations/{talk.pk}/", body, token=token_of(eva))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
        assert Conversation.objects.get(pk=talk.pk).busy_mode == "collect"

    def test_of_somebody_elses_conversation_only_who_may_change_bots_decides(
        self, call: Call, talk: Conversation, people: dict[str, Person]
    ) -> None:
        path, body = f"/api/v1/conversations/{talk.pk}/", {"busy_mode": "steer"}

        refused = call("PATCH", path, body, token=token_of(people["approver"]))
        assert (refused.status_code, refused.json()["code"]) == (403, "no_right")
        assert "somebody else" in refused.json()["why"]
        assert call("PATCH", path, body, token=token_of(people["viewer"])).status_code == 403
        assert Conversation.objects.get(pk=talk.pk).busy_mode == "collect"
        assert call("PATCH", path, body, token=token_of(people["admin"])).status_code == 200

    def test_who_may_not_read_it_learns_not_even_that_it_is_there(self, call: Call, talk: Conversation) -> None:
        stranger = token_of(Person.objects.create_user(username="stranger", roles=[]))
        path = f"/api/v1/conversations/{talk.pk}/"
        assert call("PATCH", path, {"busy_mode": "steer"}, token=stranger).status_code in (403, 404)
        assert call("PATCH", path, {"busy_mode": "steer"}).status_code == 401

    def test_a_gateway_may_not(self, call: Call, talk: Conversation, eva: Person) -> None:
        token = gateway_token(eva, "api:ada")
        answer = call("PATCH", f"/api/v1/conversations/{talk.pk}/", {"busy_mode": "steer"}, token=token)
        assert (answer.status_code, answer.json()["code"]) == (403, "no_right")
