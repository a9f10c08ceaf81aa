"""Who did it. Stamped by the server, never taken from a request's body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

ActorKind = Literal["person", "bot", "system"]


class PersonLike(Protocol):
    """What the kernel needs to know of a person."""

    pk: int

    def get_username(self) -> str:
        """Return the unique sign-in name."""
        ...


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change: a person, a bot, or a named part of the system."""

    kind: ActorKind
    id: str
    name: str

    @classmethod
    def person(cls, person: PersonLike) -> Actor:
        """Return the actor for a signed-in or paired person."""
        return cls("person", str(person.pk), person.get_username())

    @classmethod
    def bot(cls, slug: str) -> Actor:
        """Return the actor for the bot with this slug."""
        return cls("bot", slug, slug)

    @classmethod
    def system(cls, part: str) -> Actor:
        """Return the actor for a part of the platform, such as `sweep` or `gateway:telegram`."""
        return cls("system", part, part)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"
