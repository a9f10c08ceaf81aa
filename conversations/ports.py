"""What conversations take from outside: messages in one format, and commands registered by apps above."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from identities.permissions import Permission

if TYPE_CHECKING:
    from conversations.models import Conversation, InboundMessage
    from identities.models import Identity, Person


@dataclass(frozen=True, slots=True)
class UnifiedMessage:
    """A message of any channel.

    `account` is the adapter's own (`telegram:ada`); `event_id` is unique per account. `person_id` is set only by adapters that have
    authenticated the sender themselves (console, API with a personal token, command line); other senders are found by their paired account.
    """

    account: str
    event_id: str
    identity_slug: str
    chat_id: str
    sender_id: str
    text: str
    thread_id: str = ""
    message_id: str = ""
    sender_name: str = ""
    sender_kind: str = "person"
    kind: str = "chat"
    person_id: int | None = None
    platform_at: dt.datetime | None = None
    media: list[dict[str, Any]] = field(default_factory=list)

    @property
    def platform(self) -> str:
        """Return the platform's name, the first part of the account."""
        return platform_of(self.account)


def platform_of(account: str) -> str:
    """Return `telegram` for `telegram:ada`."""
    return account.partition(":")[0]


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What a chat command gets: who, to which bot, where, and the text after the command's name."""

    inbound: InboundMessage
    identity: Identity
    person: Person | None
    conversation: Conversation | None
    arguments: str

    def known_person(self) -> Person:
        """Return the person; commands that need pairing are called only with one."""
        if self.person is None:
            raise LookupError("this command was called without a paired person")
        return self.person


@dataclass(frozen=True, slots=True)
class Command:
    """A chat command: its name without the slash, one line of help, the permission it needs, and what it does."""

    name: str
    help: str
    permission: Permission
    run: Callable[[CommandContext], str]
    needs_pairing: bool = True


# The platforms that a process sends to, and how to ask whether an account there is served. Apps above fill it when Django starts.
_senders: dict[str, Callable[[str], bool]] = {}


def register_sender(platform: str, *, serves: Callable[[str], bool]) -> None:
    """Note that a process sends to `platform`; `serves` says of an account whether one does so now."""
    _senders[platform] = serves


def sending_platforms() -> tuple[str, ...]:
    """Return the platforms that a process sends to."""
    return tuple(_senders)


def has_sender(account: str) -> bool:
    """Return whether a process sends what goes to this account.

    Everywhere else (console, API, command line, a platform nobody serves) answers are read from PostgreSQL: storing one is
    delivering it.
    """
    return platform_of(account) in _senders


def is_served(account: str) -> bool:
    """Return whether what goes to this account would be sent now."""
    serves = _senders.get(platform_of(account))
    return serves is not None and serves(account)


_commands: dict[str, Command] = {}


def command(
    name: str, *, help: str, permission: Permission, needs_pairing: bool = True
) -> Callable[[Callable[[CommandContext], str]], Callable[[CommandContext], str]]:
    """Register the decorated function as `/name`; apps above register theirs in their `commands.py`."""

    def register(run: Callable[[CommandContext], str]) -> Callable[[CommandContext], str]:
        _commands[name] = Command(name, help, permission, run, needs_pairing)
        return run

    return register


def find_command(name: str) -> Command | None:
    """Return the command of that name, if any."""
    return _commands.get(name)


def all_commands() -> list[Command]:
    """Return every registered command by name."""
    return [_commands[name] for name in sorted(_commands)]
