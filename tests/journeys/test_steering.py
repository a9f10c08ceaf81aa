"""A person corrects herself while Codex works: it hears her in the running turn. Claude, which confirms nothing, answers her next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.emulators.telegram import Person
from tests.running_product import World, eventually

pytestmark = [pytest.mark.stack, pytest.mark.realcli]
STORY = "Once upon a time there was a cat that had all the time in the world."


@pytest.fixture
def codex(world: World) -> Iterator[World]:
    """Ada asks Codex."""
    world.product.sql("UPDATE identities_identity SET provider_chain = '{codex}' WHERE slug = 'ada'")
    yield world
    world.product.sql("UPDATE identities_identity SET provider_chain = '{claude}' WHERE slug = 'ada'")


def switches(world: World, eva: Person, mode: str) -> None:
    """Eva switches her conversation to this busy mode, in Telegram."""
    assert f"While I work here: {mode}." in eva.wait_for_reply(eva.send(world.ada, f"/busy {mode}")).text


def test_codex_hears_it_in_the_running_turn_and_answers_once(codex: World) -> None:
    eva = codex.person()
    switches(codex, eva, "steer")
    gate = codex.model.hold("cats", STORY, after_events=6)
    eva.send(codex.ada, "Tell me of cats.")
    codex.model.wait_for_requests(1)
    eva.send(codex.ada, "No, of dogs.")
    eventually(lambda: "joined" in [state for state, _ in codex.turns_of(eva)])
    eventually(lambda: "I take this into what I am working on." in codex.told(eva))
    gate.release()
    eventually(lambda: [state for state, _ in codex.turns_of(eva)] == ["replied", "joined"])
    eventually(lambda: any("You said: No, of dogs." in text for text in codex.told(eva)))
    assert [request.said for request in codex.model.requests] == ["Tell me of cats.", "No, of dogs."]
    assert len([text for text in codex.told(eva) if "dogs" in text]) == 1
    (reserved,) = codex.product.sql(
        "SELECT count(*) FROM execution_execution e JOIN conversations_turn t ON t.execution_id = e.id"
        " JOIN conversations_conversation c ON c.id = t.conversation_id WHERE c.chat_id = %s",
        str(eva.id),
    )
    assert reserved == (1,)


def test_claude_confirms_nothing_so_it_follows_up(world: World) -> None:
    eva = world.person()
    switches(world, eva, "steer")
    gate = world.model.hold("cats", STORY)
    eva.send(world.ada, "Tell me of cats.")
    world.model.wait_for_requests(1)
    later = eva.send(world.ada, "No, of dogs.")
    eventually(lambda: len(world.turns_of(eva)) == 2)
    gate.release()
    assert "dogs" in eva.wait_for_reply(later, contains="You said").text
    assert [state for state, _ in world.turns_of(eva)] == ["replied", "replied"]


def test_interrupt_ends_what_runs_and_answers_the_newer_message(world: World) -> None:
    eva = world.person()
    switches(world, eva, "interrupt")
    world.model.silence("cats", 120)
    eva.send(world.ada, "Tell me of cats.")
    world.model.wait_for_requests(1)
    later = eva.send(world.ada, "No, of dogs.")
    assert "dogs" in eva.wait_for_reply(later, contains="You said").text
    assert [state for state, _ in world.turns_of(eva)] == ["stopped", "replied"]
    assert any("a newer message takes its place" in text for text in world.told(eva))
