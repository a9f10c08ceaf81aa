"""The chat commands every bot knows. They run at once, in their own transaction, and never wait in a lane."""

from __future__ import annotations

from budgets import queries as budget_queries
from conversations.actions import set_busy_mode, start_anew, stop_conversation
from conversations.models import Turn
from conversations.policies import is_parked
from conversations.ports import CommandContext, all_commands, command, platform_of
from conversations.queries import open_turns
from conversations.states import BusyMode, TurnState
from conversations.wording import moment, reasons
from execution import queries as execution_queries
from fleet.kernel.actors import Actor
from governance import queries as governance_queries
from identities import actions as identity_actions
from identities.models import Person
from identities.permissions import Permission


@command("help", help="what you can send", permission=Permission.BOT_TALK, needs_pairing=False)
def help_command(context: CommandContext) -> str:
    """List the commands this person may use."""
    allowed = context.person.permissions if context.person else frozenset()
    lines = [
        f"/{entry.name} – {entry.help}"
        for entry in all_commands()
        if not entry.needs_pairing or entry.permission in allowed
    ]
    return f"I am {context.identity.name}. Write to me, or send:\n" + "\n".join(lines)


@command("start", help="say hello", permission=Permission.BOT_TALK, needs_pairing=False)
def start_command(context: CommandContext) -> str:
    """Greet, and say what is needed before a talk can begin."""
    if context.person:
        return f"I am {context.identity.name}. You are signed in as {context.person.get_username()}. Write to me."
    return (
        f"I am {context.identity.name}. To talk to me, sign in to the console, open Account, create a pairing code"
        " and send it here as: /pair CODE"
    )


@command("pair", help="connect this chat account: /pair CODE", permission=Permission.PUBLIC, needs_pairing=False)
def pair_command(context: CommandContext) -> str:
    """Connect the sender's chat account with the person who made the code."""
    inbound = context.inbound
    platform = platform_of(inbound.account)
    person = identity_actions.pair(
        platform=platform,
        external_id=inbound.sender_id,
        code=context.arguments,
        by=Actor.system(f"gateway:{platform}"),
    )
    return f"Paired. Here you are {person.get_username()} now. Write to me."


@command("stop", help="stop what I am doing here and clear the queue", permission=Permission.BOT_TALK)
def stop_command(context: CommandContext) -> str:
    """Stop the waiting turns first, then the active one."""
    if context.conversation is None:
        return "There is nothing to stop."
    by = Actor.person(context.known_person())
    waiting, active = stop_conversation(context.conversation, by=by, reason=f"stopped by {by.name}")
    if not waiting and not active:
        return "There is nothing to stop."
    parts = (["the answer I was working on"] if active else []) + ([f"{waiting} waiting"] if waiting else [])
    return "Stopping " + " and ".join(parts) + "."


@command("new", help="start a new conversation; I forget what was said here", permission=Permission.BOT_TALK)
def new_command(context: CommandContext) -> str:
    """Let the next message begin a session of its own."""
    if context.conversation and start_anew(context.conversation, by=Actor.person(context.known_person())):
        return "Your next message starts a new conversation. I go on from nothing that was said before."
    return "This is a new conversation already."


@command(
    "busy",
    help="what happens to messages while I work: /busy collect, followup, steer or interrupt",
    permission=Permission.BOT_TALK,
)
def busy_command(context: CommandContext) -> str:
    """Say how messages are treated that find the bot busy here, or change it."""
    conversation = context.conversation
    if conversation is None:
        return "There is no conversation here yet. Write to me first."
    wanted = context.arguments.lower()
    if wanted:
        set_busy_mode(conversation=conversation, mode=wanted, by=Actor.person(context.known_person()))
    lines = [f"/busy {mode.value} – {mode.label.partition(': ')[2]}" for mode in BusyMode]
    return f"While I work here: {BusyMode(conversation.busy_mode).value}.\n" + "\n".join(lines)


@command("status", help="what I am doing", permission=Permission.BOT_TALK)
def status_command(context: CommandContext) -> str:
    """Say what runs and waits here, and whether the fleet is stopped."""
    lines = [f"{order.sentence}" for order in governance_queries.active_orders()]
    turns = open_turns(context.conversation) if context.conversation else []
    active = next((turn for turn in turns if turn.state != TurnState.QUEUED), None)
    lines.append(f"Working on your message: {active.state}." if active else "I am idle here.")
    lines += waiting_lines(turns, context.person)
    lines.append(execution_queries.execution_mode().sentence)
    return "\n".join(line for line in lines if line)


def waiting_lines(turns: list[Turn], person: Person | None) -> list[str]:
    """Say how many messages wait, until when if it is for a login, and which logins cannot be used now."""
    waiting = [turn for turn in turns if turn.state == TurnState.QUEUED]
    until = next((turn.parked_until for turn in waiting if is_parked(turn)), None)
    lines = [f"{len(waiting)} waiting until {moment(until, person)}." if until else f"{len(waiting)} waiting."]
    shut = [login for login in execution_queries.shut_logins() if not login.may_be_tried]
    return (lines if waiting else []) + [f"{reasons([login], person)}." for login in shut]


@command("usage", help="what I have used", permission=Permission.BOT_TALK)
def usage_command(context: CommandContext) -> str:
    """Say what this bot has used today, by the budgets' own numbers."""
    return budget_queries.usage_sentence(context.identity.slug)


@command("budget", help="what may still be spent", permission=Permission.BOT_TALK)
def budget_command(context: CommandContext) -> str:
    """Say what the fleet and this bot may still spend."""
    return budget_queries.budget_sentence(context.identity.slug)
