"""Intake: from a stored message to a person, a conversation, and a command or a turn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from conversations import events
from conversations.actions.expecting import expect
from conversations.actions.lanes import take_into_lane
from conversations.actions.outbox import deliver
from conversations.actions.places import enter
from conversations.actions.refusals import refuse
from conversations.models import Conversation, InboundMessage
from conversations.policies import is_stop_word
from conversations.ports import Command, CommandContext, find_command
from conversations.queries import lane_is_busy
from conversations.states import INBOUND, Author, DeliveryKind, InboundState
from fleet.kernel.actors import Actor
from fleet.kernel.database import commits_early
from fleet.kernel.exceptions import FleetError, Invalid, Refused
from fleet.kernel.transitions import move
from governance.states import Gate
from identities import policies as identity_policies
from identities import queries as identity_queries
from identities.models import Identity, Person
from identities.permissions import Permission

_BY = Actor.system("intake")
# `/name`, `/name@this_bot`, and what follows; two slashes, or a path such as /etc/passwd, are ordinary text.
_COMMAND = re.compile(r"/(?P<name>\w+)(?:@\w+)?(?:\s+(?P<arguments>.*))?\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of a message: `turn`, `command`, `refused`, or `received` when another process is at it right now."""

    kind: str
    turn_id: int | None = None
    refusal: dict[str, Any] | None = None
    answer: str = ""


def process(inbound_id: int) -> Intake:
    """Take a received message in: run its command, or put it into a turn and start the turn when the lane is free.

    May be called any number of times, from any process: only the first call acts, the others tell what became of it. It does not wait for
    the disk: the message itself is there already, and what a dying machine forgets of its taking in is done again.
    """
    expect(inbound_id)
    with transaction.atomic():
        rows = InboundMessage.objects.select_for_update(skip_locked=True).annotate(early=commits_early())
        row = rows.filter(pk=inbound_id).first()
        if row is None:
            return Intake("received")
        if row.state == InboundState.RECEIVED:
            _take_in(row)
    return outcome_of(row)


def outcome_of(row: InboundMessage) -> Intake:
    """Return what became of `row`."""
    if row.state == InboundState.TAKEN:
        return Intake("turn", turn_id=row.turn_id)
    if row.state == InboundState.ANSWERED:
        answer = row.deliveries.order_by("pk").first()
        return Intake("command", answer=answer.text if answer else "")
    if row.state == InboundState.REFUSED:
        return Intake("refused", refusal=row.refusal)
    return Intake("received")


def _take_in(row: InboundMessage) -> None:
    person: Person | None = None
    try:
        identity = identity_queries.get_identity(row.identity_slug)
        person = _person_of(row)
        command, arguments = _command_in(row, identity)
        if command and not command.needs_pairing:
            return _answer(row, command, CommandContext(row, identity, person, None, arguments))
        person = _known(person, row)
        identity_policies.check_can(person, command.permission if command else Permission.BOT_TALK)
        conversation = enter(row, identity, person)
        row.conversation = conversation
        if command:
            return _answer(row, command, CommandContext(row, identity, person, conversation, arguments))
        take_into_lane(row, identity, person, conversation)
    except FleetError as error:
        refuse(row, _as_refusal(error), gate=Gate.INTAKE, person_id=person.pk if person else None)
    return None


def _as_refusal(error: FleetError) -> Refused:
    """Return any explained error as a refusal, keeping its code and words."""
    if isinstance(error, Refused):
        return error
    return Refused(error.what, why=error.why, next_step=error.next_step, code=error.code)


def _person_of(row: InboundMessage) -> Person | None:
    if row.person_id is not None:
        return Person.objects.get(pk=row.person_id)
    return identity_queries.find_person(row.account.partition(":")[0], row.sender_id)


def _known(person: Person | None, row: InboundMessage) -> Person:
    if person is None:
        raise Refused(
            "I do not know you yet.",
            why="Your chat account is not paired with a person of this company.",
            next_step="Sign in to the console, open Account, create a pairing code and send it to me as: /pair CODE",
            code="unpaired",
        )
    return person


def _command_in(row: InboundMessage, identity: Identity) -> tuple[Command | None, str]:
    """Return the command a text stands for and its arguments; a stop word counts as /stop while the bot is busy."""
    if is_stop_word(row.text) and lane_is_busy(row, identity):
        return find_command("stop"), ""
    found = _COMMAND.match(row.text)
    if found is None:
        return None, ""
    name = found["name"].lower()
    command = find_command(name)
    if command is None:
        raise Invalid(
            f"There is no command /{name[:40]}.",
            next_step="Send /help for the list. To send a text that begins with a slash, write two slashes.",
            code="unknown_command",
        )
    return command, (found["arguments"] or "").strip()


def _answer(row: InboundMessage, command: Command, context: CommandContext) -> None:
    """Run a command in the row's own transaction and deliver its answer; it never waits in a lane."""
    answer = command.run(context)
    conversation: Conversation | None = context.conversation
    move(
        row,
        INBOUND,
        InboundState.ANSWERED,
        by=_BY,
        event=events.ANSWERED,
        details={"command": command.name},
        conversation_id=conversation.pk if conversation else None,
    )
    if conversation:
        conversation.messages.create(author=Author.PERSON, name=row.sender_name, text=row.text)
        conversation.messages.create(author=Author.SYSTEM, text=answer)
    deliver(
        account=row.account,
        chat_id=row.chat_id,
        thread_id=row.thread_id,
        reply_to=row.message_id,
        kind=DeliveryKind.NOTICE,
        text=answer,
        inbound=row,
        by=_BY,
    )
