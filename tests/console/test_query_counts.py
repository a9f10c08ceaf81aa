"""What a page costs does not depend on how much there is: the number of queries is pinned, small and large."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from conversations.models import Conversation, Message
from execution.models import HeldProcess, Worker
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from governance.models import StopLine
from governance.states import KillMode, KillScope
from identities.models import Identity, Person
from tests.conversations import scenes

BY = Actor.system("test")
SHELL = 3  # session, person, kill orders
COUNTS = {
    "/fleet/": SHELL + 9,
    "/fleet/ada/": SHELL + 13,
    "/chat/": SHELL + 3,
    "/chat/{talk}/": SHELL + 7,
    "/kill-switch/": SHELL + 10,
    "/kill-switch/receipts/{order}/": SHELL + 6,
    "/runner/": SHELL + 6,
    "/account/": SHELL + 2,
    "/productivity/": SHELL,
}


@pytest.fixture
def places(ada: Identity, people: dict[str, Person]) -> dict[str, int]:
    """A conversation with a running turn, an order that is in force, and a bot without a budget of its own."""
    scenes.bot("bruno")
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    turn = scenes.turn_of(scenes.say())
    scenes.answer(turn)
    scenes.running(scenes.turn_of(scenes.say("Again")))
    order = governance_actions.stop(scope=KillScope.IDENTITY, scope_id="ada", mode=KillMode.DRAIN, reason="Test", by=BY)
    worker = Worker.objects.first()
    HeldProcess.objects.create(
        worker=worker, identity=ada, session_id="s", began_at=worker.started_at, idle_since=worker.started_at
    )
    return {"talk": turn.conversation_id, "order": order.pk}


def crowd(places: dict[str, int]) -> None:
    """Make it many of everything."""
    ada = Identity.objects.get(slug="ada")
    bots = Identity.objects.bulk_create(Identity(slug=f"bot-{n}", name=f"Bot {n}", state="active") for n in range(60))
    Conversation.objects.bulk_create(
        Conversation(account="web:ada", chat_id=f"c{n}", identity=bot, title=f"Talk {n}") for n, bot in enumerate(bots)
    )
    worker = Worker.objects.first()
    moments = {"began_at": worker.started_at, "idle_since": worker.started_at}
    HeldProcess.objects.bulk_create(HeldProcess(worker=worker, identity=bot, session_id="s", **moments) for bot in bots)
    talk = Conversation.objects.get(pk=places["talk"])
    turn = talk.turns.order_by("pk").first()
    Message.objects.bulk_create(Message(conversation=talk, turn=turn, author="bot", text="Well.") for _ in range(100))
    StopLine.objects.bulk_create(
        StopLine(
            order_id=places["order"], kind="process", subject=str(10_000 + n), killed=True, quiet_at=ada.created_at
        )
        for n in range(200)
    )


def queries_of(client: Client, address: str) -> int:
    """How many queries this page takes."""
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


@pytest.mark.parametrize("path", COUNTS)
def test_the_number_of_queries_is_pinned(operator: Client, places: dict[str, int], path: str) -> None:
    address = path.format(**places)
    small = queries_of(operator, address)
    crowd(places)
    assert (small, queries_of(operator, address)) == (COUNTS[path], COUNTS[path])
