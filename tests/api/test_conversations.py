"""Lists over the API: paged by id, and bounded."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations.models import Conversation, Message
from identities.models import Identity, Person
from tests.api.conftest import Call, token_of


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
