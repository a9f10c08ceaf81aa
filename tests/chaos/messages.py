"""A message of a drill: asked in Telegram, with an answer the model gives for it alone."""

from __future__ import annotations

from dataclasses import dataclass

from tests.emulators.model import ModelRequest, Usage
from tests.emulators.telegram import Person
from tests.running_product import World

USED = Usage(input=11, output=50)
PACE = 0.04  # seconds between two events of a streamed answer: it takes about a second
LONG = " ".join(f"word{number}" for number in range(60))
FINAL = ("replied", "refused", "failed", "stopped", "interrupted")


@dataclass(frozen=True)
class Said:
    """What one person said; the marker is in the question, in the answer, and nowhere else."""

    marker: str
    person: Person

    def turns(self, world: World) -> list[str]:
        """Return the states of its turns."""
        return [state for state, _ in world.turns_of(self.person)]

    def is_over(self, world: World) -> bool:
        """Return whether its turn has ended and the person has heard of it."""
        turns = self.turns(world)
        return bool(turns) and all(state in FINAL for state in turns) and bool(world.told(self.person))

    def answers(self, world: World) -> int:
        """Return how many messages bring the whole answer."""
        return sum(f"{self.marker} is done." in text for text in world.told(self.person))

    def requests(self, world: World) -> list[ModelRequest]:
        """Return every model call it caused."""
        return [request for request in world.model.requests if self.marker.encode() in request.body]

    def prompts(self, world: World) -> list[ModelRequest]:
        """Return the model calls that begin it: a turn that is started twice has two."""
        return [request for request in self.requests(world) if not request.tool_results]

    def used(self, world: World) -> int:
        """Return the output tokens the model has counted for it, of answers it was not interrupted in and of others."""
        return USED.output * len(self.requests(world))

    def posted(self, world: World) -> int:
        """Return the output tokens that the ledger has for it."""
        rows = world.product.sql(
            "SELECT coalesce(sum(l.quantity), 0) FROM budgets_tokenledger l"
            " JOIN conversations_turn t ON t.execution_id = l.execution_id"
            " JOIN conversations_conversation c ON c.id = t.conversation_id WHERE c.chat_id = %s AND l.unit = 'output'",
            str(self.person.id),
        )
        return int(rows[0][0])


def say(world: World, marker: str, *, works: bool) -> Said:
    """Let somebody new ask for something that takes a second, with a tool call in it or without."""
    world.model.pace = PACE
    answer = f"{LONG} {marker} is done."
    if works:
        world.model.call_tool(marker, "Bash", {"command": "sleep 1; echo worked"}, then=answer, usage=USED)
    else:
        world.model.reply(marker, answer, usage=USED)
    person = world.person()
    person.send(world.ada, f"Please see to {marker}")
    return Said(marker, person)
