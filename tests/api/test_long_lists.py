"""Thirty thousand rows: every list of the API is paged by key, and its last page costs what its first one does."""

from __future__ import annotations

from django.utils import timezone

from conversations.models import Conversation
from execution.models import ExecutionEvent
from fleet import following
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from identities.models import Identity, Person
from tests.api.conftest import Call, token_of
from tests.conversations import scenes
from tests.crowds import MANY, multiply, no_page_is_skipped_over, statements_of
from tests.factories.governance import KillOrderFactory, StopLineFactory

BY = Actor.system("test")
TOKEN = 3  # the token, its person, and that it was used


def talk_of(eva: Person) -> Conversation:
    """A conversation of Eva's over the API."""
    said = scenes.say("Hello", account="api:ada", chat_id="c1", sender_id=str(eva.pk), person_id=eva.pk)
    return scenes.answer(scenes.turn_of(said)).conversation


def costs(call: Call, token: str, address: str, number: int) -> None:
    """The answer takes so many queries beside those of the token, and none that skips over rows."""
    call("GET", address, token=token)  # the token is noted as used once a minute
    statements = statements_of(lambda: call("GET", address, token=token))
    assert no_page_is_skipped_over(statements)
    assert len([sql for sql in statements if "accesstoken" not in sql]) == number, "\n".join(statements)


def test_conversations(call: Call, ada: Identity, eva: Person) -> None:
    talk, token = talk_of(eva), token_of(eva)
    multiply(talk, chat_id="'d' || n")
    costs(call, token, "/api/v1/conversations?limit=100", 1)
    costs(call, token, f"/api/v1/conversations?before={talk.pk + 100}&limit=100", 1)
    last = call("GET", f"/api/v1/conversations?before={talk.pk + 10}", token=token).json()
    assert (len(last["results"]), last["before"]) == (10, None)


def test_messages(call: Call, ada: Identity, eva: Person) -> None:
    talk, token = talk_of(eva), token_of(eva)
    message = talk.messages.get(author="bot")
    multiply(message, text="'Answer ' || n")
    address = f"/api/v1/conversations/{talk.pk}/messages"
    costs(call, token, address, 2)
    costs(call, token, f"{address}?before={message.pk + 100}", 2)


def test_events_of_a_turn(ada: Identity, eva: Person, django_assert_num_queries) -> None:
    talk = talk_of(eva)
    turn = talk.turns.get()
    event = ExecutionEvent.objects.create(execution=turn.execution, sequence=1000, kind="text", payload={})
    multiply(event, sequence="1000 + n")
    for after, number in ((1000, following.EVENTS_PER_LOOK), (MANY + 900, 100)):
        with django_assert_num_queries(2):
            glimpse = following.look(turn.pk, after=following.Place(turn.execution_id, after))
        assert [glimpse.events[0].sequence, len(glimpse.events)] == [after + 1, number]


def test_kill_orders(call: Call, ada: Identity, eva: Person) -> None:
    order = governance_actions.stop(scope="conversation", scope_id="1", mode="drain", reason="Test", by=BY)
    multiply(order, epoch="epoch + n", scope_id="n + 1")
    token = token_of(eva)
    costs(call, token, "/api/v1/kill-orders", 1)
    costs(call, token, f"/api/v1/kill-orders?before={order.pk + 100}&limit=100", 1)
    first = call("GET", "/api/v1/kill-orders", token=token).json()
    following_page = call("GET", f"/api/v1/kill-orders?before={first['before']}", token=token).json()
    assert first["results"][-1]["id"] - 1 == following_page["results"][0]["id"]
    last = call("GET", f"/api/v1/kill-orders?before={order.pk + 10}", token=token).json()
    assert (len(last["results"]), last["before"]) == (10, None)


def test_the_lines_of_a_receipt(call: Call, ada: Identity, eva: Person) -> None:
    order = KillOrderFactory()
    quiet = StopLineFactory(order=order, quiet_at=timezone.now(), killed=True)
    multiply(quiet, subject="n + 100000")
    multiply(StopLineFactory(order=order), subject="n + 200000")
    token, address = token_of(eva), f"/api/v1/kill-orders/{order.pk}/"
    costs(call, token, address, 4)
    receipt = call("GET", address, token=token).json()
    assert (receipt["alive"], len(receipt["lines"]), receipt["milliseconds"]) == (MANY + 1, 200, None)
    assert [line["milliseconds"] for line in receipt["lines"][:100]] == [None] * 100

    costs(call, token, f"{address}?after={receipt['after']}", 3)
    following_page = call("GET", f"{address}?after={receipt['after']}", token=token).json()

    subjects = {line["subject"] for line in receipt["lines"]} & {line["subject"] for line in following_page["lines"]}
    assert (len(following_page["lines"]), subjects) == (100, set())
    last = call("GET", f"{address}?after={quiet.pk + MANY - 5}", token=token).json()
    assert (len(last["lines"]), last["after"]) == (5, None)
    assert call("GET", f"{address}?after=x", token=token).status_code == 400
