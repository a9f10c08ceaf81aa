"""Conversations: the list, the transcript, and the turns that are not over."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from conversations import queries
from conversations.models import Conversation, InboundMessage, Message, Turn
from conversations.policies import may_set_busy_mode
from conversations.ports import has_sender, platform_of
from conversations.queries import PAGE
from conversations.states import TURN, BusyMode, TurnState
from execution import queries as execution_queries
from execution.models import ExecutionEvent
from execution.states import ExecutionState
from fleet.console.presenters import (
    BotName,
    BusyChoice,
    BusyView,
    ChatPage,
    ConversationRow,
    TextPart,
    ToolLine,
    TurnView,
)
from fleet.console.screens.deliveries import NOTHING_ON_ITS_WAY, OnTheirWay, on_their_way
from fleet.console.screens.transcript import items_of, parts_of, waiting_in
from fleet.console.statuses import turn_status
from identities.models import Identity, Person
from identities.permissions import Permission

STREAM_EVENTS = 2_000
_PLACES = {"cli": "on the command line", "api": "over the API"}


def conversation_rows(
    person: Person, *, before: tuple[dt.datetime, int] | None = None, limit: int = PAGE
) -> tuple[list[ConversationRow], tuple[dt.datetime, int] | None]:
    """Return the conversations this person may read, the latest first, and the (time, id) to go on from."""
    rows = list(queries.latest_conversations(person, before=before, limit=limit + 1))
    active = dict(
        Turn.objects.filter(conversation__in=rows, state__in=TURN.live)
        .order_by("-pk")
        .values_list("conversation_id", "state")
    )
    last = rows[limit - 1] if len(rows) > limit else None
    shown = [conversation_row(row, active.get(row.pk, "")) for row in rows[:limit]]
    return shown, (last.last_message_at, last.pk) if last else None


def conversation_row(row: Conversation, state: str = "") -> ConversationRow:
    """Return one conversation for a list; `state` is that of its active turn, if any."""
    return ConversationRow(
        id=row.pk,
        bot=BotName(row.identity.slug, row.identity.name, row.identity.title),
        title=row.title or "Untitled",
        channel=platform_of(row.account),
        last_message_at=row.last_message_at,
        status=turn_status(state) if state else None,
    )


def chat_page(
    conversation: Conversation, person: Person, *, before: int | None = None, after: int | None = None
) -> ChatPage:
    """Return a stretch of a conversation: its end, what comes before the message `before`, or what comes after `after`."""
    messages = queries.transcript(conversation, before=before, after=after, limit=PAGE + 1)
    older = after is None and len(messages) > PAGE
    shown = messages[-PAGE:] if after is None else messages[:PAGE]
    following = messages[PAGE].pk if after is not None and len(messages) > PAGE else before
    open_turns = [] if before else queries.open_turns(conversation)
    row = conversation_row(conversation)
    why_not = why_not_here(conversation, person)
    return ChatPage(
        row=row,
        items=items_of(shown, row.bot, _on_their_way(conversation, shown, person, following)),
        turns=turn_views(open_turns, person),
        older=str(shown[0].pk) if older else "",
        newer=before is not None,
        may_talk=not why_not,
        why_not=why_not,
        busy=busy_view(conversation) if may_set_busy_mode(conversation, person) else None,
    )


def busy_view(conversation: Conversation) -> BusyView:
    """Return what happens here to messages that find the bot busy, and what else can be chosen."""
    parts = [(mode, mode.label.partition(": ")) for mode in BusyMode]
    choices = tuple(
        BusyChoice(mode.value, name, meaning, mode == conversation.busy_mode) for mode, (name, _, meaning) in parts
    )
    return BusyView(next((choice.name for choice in choices if choice.chosen), conversation.busy_mode), choices)


def _on_their_way(
    conversation: Conversation, messages: Sequence[Message], person: Person, following: int | None
) -> OnTheirWay:
    """Return the deliveries of these messages; none where the page itself is what delivers."""
    if not has_sender(conversation.account):
        return NOTHING_ON_ITS_WAY
    return on_their_way(conversation, messages, person=person, before_message=following)


def conversation_of(inbound_id: int) -> int | None:
    """Return the conversation that a message went into; None while intake has not looked at it."""
    return InboundMessage.objects.values_list("conversation_id", flat=True).get(pk=inbound_id)


def new_chat(identity: Identity) -> ChatPage:
    """Return the page of a conversation that begins with the next message."""
    row = ConversationRow(
        0, BotName(identity.slug, identity.name, identity.title), "New chat", "web", identity.created_at
    )
    return ChatPage(row=row, items=(), turns=())


def why_not_here(conversation: Conversation, person: Person) -> str:
    """Return why this person cannot write into this conversation from the console; empty when they can."""
    platform = platform_of(conversation.account)
    if platform != "web":
        place = _PLACES.get(platform, f"on {platform.capitalize()}")
        return f"This conversation takes place {place}; answer there. Here you can follow and stop it."
    if conversation.person_id != person.pk:
        return "This is somebody else’s conversation. You can follow it and stop a turn, but not speak in it."
    if Permission.BOT_TALK not in person.permissions:
        return "Your role lets you read, not talk. An administrator can give you the role of an operator."
    return ""


def turn_views(turns: Sequence[Turn], person: Person) -> tuple[TurnView, ...]:
    """Return the turns that are not over, with what the active one wrote so far."""
    position = 0
    views = []
    for turn in turns:
        position += turn.state == TurnState.QUEUED
        views.append(_turn_view(turn, position, person))
    return tuple(views)


def _turn_view(turn: Turn, position: int, person: Person) -> TurnView:
    execution = turn.execution
    events = execution_queries.events_after(execution.pk, limit=STREAM_EVENTS) if execution else []
    parts = parts_of(events)
    return TurnView(
        id=turn.pk,
        status=turn_status(turn.state),
        label=_label(turn, position, parts, events),
        since=turn.admitted_at or turn.created_at,
        execution=turn.execution_id or 0,
        sequence=events[-1].sequence if events else 0,
        parts=parts,
        may_stop=turn.person_id == person.pk or Permission.TURN_STOP in person.permissions,
    )


def _label(turn: Turn, position: int, parts: tuple[TextPart | ToolLine, ...], events: Sequence[ExecutionEvent]) -> str:
    if turn.state == TurnState.QUEUED:
        return f"Position {position} in this conversation"
    if turn.execution and turn.execution.stop_requested_at:
        return "Stopping"
    if turn.execution and turn.execution.state == ExecutionState.QUEUED:
        return "Waiting for a free worker"
    if turn.state == TurnState.WAITING:
        return "A tool call waits for approval"
    return waiting_in(events) or _doing(parts)


def _doing(parts: tuple[TextPart | ToolLine, ...]) -> str:
    last = parts[-1] if parts else None
    if isinstance(last, TextPart):
        return "Writing"
    if last and last.status.tone == "running":
        return f"Running tool {last.tool}"
    return "Thinking"
