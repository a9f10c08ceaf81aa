"""A message that will probably start a turn is announced to the workers before it is admitted; every other one is not."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest

from conversations import actions
from conversations.models import Session, Turn
from execution import actions as execution_actions
from execution.actions import Held
from execution.models import Worker
from execution.providers import registry
from execution.providers.mock.provider import MockProvider
from fleet.kernel import clock, queue
from identities.models import ChatAccount
from tests.conversations import scenes
from tests.conversations.scenes import answer, running, say, turn_of

pytestmark = pytest.mark.django_db(transaction=True)


class WithProcess(MockProvider):
    """A mock for which processes are started."""

    capabilities = type(MockProvider.capabilities)(name="mock", model="mock-1", spawns_process=True)


@pytest.fixture(autouse=True)
def _with_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "get", lambda _name: WithProcess())


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What workers were told to expect, in order."""
    told: list[dict[str, Any]] = []

    def publish(job: str, arguments: dict[str, Any], **_: Any) -> bool:
        if job == "execution.expect":
            told.append(arguments)
        return True

    monkeypatch.setattr(queue, "publish", publish)
    return told


def test_where_a_session_goes_on_its_next_turn_is_announced(eva, ada, announced) -> None:
    first = answer(turn_of(say("Hello")))
    assert announced == []
    second = turn_of(say("And now?"))
    assert announced == [
        {
            "identity_id": ada.pk,
            "conversation_id": first.conversation_id,
            "provider": second.execution.provider,
            "model": second.execution.model,
            "session_id": second.execution.session_id,
            "session_turns": second.execution.session_turns,
        }
    ]


def test_where_a_process_stands_by_nothing_is_announced(eva, ada, announced) -> None:
    first = answer(turn_of(say("Hello")))
    execution = Turn.objects.get(pk=first.pk).execution
    held = Held(uuid.uuid4(), ada.pk, first.conversation_id, "mock", "m", execution.session_id, 1, None, 1.0, 1.0)
    execution_actions.note_held(worker_id=Worker.objects.first().pk, held=[held])
    turn_of(say("And now?"))
    assert announced == []


def test_a_repeated_message_is_announced_once(eva, announced) -> None:
    answer(turn_of(say("Hello")))
    received = actions.receive(scenes.message("Again"), by=scenes.GATEWAY)
    for _ in range(3):
        actions.process(received.inbound_id)
    assert len(announced) == 1


@pytest.mark.parametrize("text", ["/status", "/new", "/help me"])
def test_a_command_is_not_announced(eva, announced, text) -> None:
    answer(turn_of(say("Hello")))
    say(text)
    assert announced == []


def test_a_text_that_only_looks_like_a_path_is(eva, announced) -> None:
    answer(turn_of(say("Hello")))
    say("// is how a comment begins")
    assert len(announced) == 1


def test_a_message_that_will_wait_is_not(eva, announced) -> None:
    answer(turn_of(say("Hello")))
    running(turn_of(say("Think")))
    say("Are you still there?")
    assert len(announced) == 1


def test_a_stranger_in_the_same_chat_is_not(eva, announced) -> None:
    answer(turn_of(say("Hello")))
    say("Me too", sender_id="999")
    assert announced == []


def test_nobody_who_is_no_longer_paired_is(eva, announced) -> None:
    answer(turn_of(say("Hello")))
    ChatAccount.objects.all().delete()
    say("Still me")
    assert announced == []


@pytest.mark.parametrize(
    "changes",
    [{"failures": 3}, {"last_used_at": "old"}, {"state": "rotated"}, {"turns": 0}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_session_that_will_not_go_on_is_not(eva, announced, changes) -> None:
    answer(turn_of(say("Hello")))
    if changes.get("last_used_at"):
        changes = {"last_used_at": clock.now() - dt.timedelta(hours=5)}
    Session.objects.update(**changes)
    say("Good morning")
    assert announced == []


def test_without_a_process_to_start_nothing_is(eva, announced, monkeypatch) -> None:
    monkeypatch.setattr(registry, "get", lambda _name: MockProvider())
    answer(turn_of(say("Hello")))
    say("And now?")
    assert announced == []
