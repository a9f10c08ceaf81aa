"""Claude at its limit: Codex answers, said once. Both at theirs: the message waits until the moment that was told, and is answered."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.running_product import World, eventually

pytestmark = [pytest.mark.stack, pytest.mark.realcli]
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"


@pytest.fixture
def both(world: World) -> Iterator[World]:
    """Ada asks Claude first, then Codex."""
    world.product.sql("UPDATE identities_identity SET provider_chain = '{claude,codex}' WHERE slug = 'ada'")
    yield world
    world.product.sql("UPDATE identities_identity SET provider_chain = '{claude}' WHERE slug = 'ada'")


def claude_refuses(world: World) -> None:
    """Claude's account has no credit left."""
    world.model.fail(lambda request: MESSAGES in request.path, 400)


def executions(world: World) -> list[tuple[str, str, str]]:
    return world.product.sql("SELECT provider, state, cause FROM execution_execution ORDER BY id")


def test_codex_answers_while_claude_cannot_and_the_person_hears_it_once(both: World) -> None:
    eva, before = both.person(), len(executions(both))
    claude_refuses(both)
    first = eva.send(both.ada, "My cat is called Tom.")
    assert "Tom" in eva.wait_for_reply(first, contains="You said").text
    second = eva.send(both.ada, "And what else?")
    eva.wait_for_reply(second, contains="else")
    assert executions(both)[before:] == [
        ("claude", "failed", "billing"),
        ("codex", "succeeded", ""),
        ("codex", "succeeded", ""),
    ]
    notices = [text for text in both.told(eva) if "meanwhile" in text]
    assert notices == ["Claude's account has no credit left; Codex answers meanwhile."]
    assert both.turns_of(eva) == [("replied", ""), ("replied", "")]
    assert "claude" in both.product.manage("status")


def test_a_message_that_nobody_can_answer_waits_and_is_answered_once_at_the_moment_that_was_told(both: World) -> None:
    eva = both.person()
    claude_refuses(both)
    until = int(time.time()) + 25
    windows = {"x-codex-primary-used-percent": "100", "x-codex-primary-window-minutes": "300"}
    windows["x-codex-primary-reset-at"] = str(until)
    kind = "usage_limit_reached"
    both.model.fail(lambda request: RESPONSES in request.path, 429, kind=kind, code=kind, headers=windows, times=1)
    said = eva.send(both.ada, "Is anybody there?")
    waits = eva.wait_for_reply(said, contains="Your message waits").text
    assert waits.startswith("Claude's account has no credit left, and Codex's login has reached its limit until ")
    assert both.turns_of(eva) == [("queued", "")]
    held = both.product.sql("SELECT count(*) FROM budgets_reservation WHERE state = 'held'")
    assert held == [(0,)]

    answer = eva.wait_for_reply(said, contains="You said")
    assert "Is anybody there?" in answer.text and time.time() >= until
    eventually(lambda: both.turns_of(eva) == [("replied", "")])
    assert len([text for text in both.told(eva) if "You said" in text]) == 1
    assert len([text for text in both.told(eva) if "Your message waits" in text]) == 1
