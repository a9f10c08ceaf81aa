"""Conversations: the list, the transcript, and the turns that are not over."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence

from django.db.models import Q
from django.utils.html import linebreaks, urlize
from django.utils.safestring import SafeString, mark_safe

from conversations import queries
from conversations.models import Conversation, Delivery, InboundMessage, Message, Turn
from conversations.ports import STORED_PLATFORMS, platform_of
from conversations.queries import PAGE
from conversations.states import TURN, Author, DeliveryKind, TurnState
from execution import queries as execution_queries
from execution.models import Execution, ExecutionEvent
from execution.states import EventKind, ExecutionState
from fleet.console import markdown
from fleet.console.presenters import (
    BotName,
    ChatPage,
    ConversationRow,
    ReceiptView,
    TextPart,
    ToolLine,
    TranscriptItem,
    TurnView,
)
from fleet.console.statuses import Status, delivery_status, turn_status
from identities.models import Identity, Person
from identities.permissions import Permission

TOOL_EVENTS = 600
STREAM_EVENTS = 2_000
_TOOLS = (EventKind.TOOL_STARTED, EventKind.TOOL_FINISHED, EventKind.TOOL_DENIED)


def conversation_rows(
    person: Person, *, before: tuple[dt.datetime, int] | None = None, limit: int = PAGE
) -> tuple[list[ConversationRow], tuple[dt.datetime, int] | None]:
    """Return the conversations this person may read, the latest first, and the (time, id) to go on from."""
    found = Conversation.objects.select_related("identity").order_by("-last_message_at", "-pk")
    if Permission.FLEET_VIEW not in person.permissions:
        found = found.filter(person=person)
    if before:
        found = found.filter(Q(last_message_at__lt=before[0]) | Q(last_message_at=before[0], pk__lt=before[1]))
    rows = list(found[: limit + 1])
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
    messages = messages[-PAGE:] if after is None else messages[:PAGE]
    open_turns = [] if before else queries.open_turns(conversation)
    row = conversation_row(conversation)
    why_not = why_not_here(conversation, person)
    return ChatPage(
        row=row,
        items=_items(messages, row.bot, {} if row.channel in STORED_PLATFORMS else _deliveries_of(messages)),
        turns=turn_views(open_turns, person),
        older=str(messages[0].pk) if older else "",
        newer=before is not None,
        may_talk=not why_not,
        why_not=why_not,
    )


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
        return (
            f"This conversation takes place on {platform.capitalize()}; answer there. Here you can follow and stop it."
        )
    if conversation.person_id != person.pk:
        return "This is somebody else’s conversation. You can follow it and stop a turn, but not speak in it."
    if Permission.BOT_TALK not in person.permissions:
        return "Your role lets you read, not talk. An administrator can give you the role of an operator."
    return ""


def _deliveries_of(messages: Sequence[Message]) -> dict[int, Status]:
    """Return by turn how far its answer got on the way to the person's platform."""
    turns = [message.turn_id for message in messages if message.author == Author.BOT]
    rows = Delivery.objects.filter(turn__in=turns, kind=DeliveryKind.ANSWER).values_list("turn_id", "state")
    return {turn: delivery_status(state) for turn, state in rows if turn is not None}


def _items(messages: Sequence[Message], bot: BotName, deliveries: dict[int, Status]) -> tuple[TranscriptItem, ...]:
    executions = [
        message.turn.execution_id
        for message in messages
        if message.author == Author.BOT and message.turn and message.turn.execution_id
    ]
    tools = _tools_of(executions) if executions else {}
    return tuple(_item(message, bot, tools, deliveries) for message in messages)


def _item(
    message: Message, bot: BotName, tools: dict[int, tuple[ToolLine, ...]], deliveries: dict[int, Status]
) -> TranscriptItem:
    turn = message.turn
    execution = turn.execution if turn else None
    ends = message.author == Author.SYSTEM and turn is not None and message.text == turn.sentence
    by_bot = message.author == Author.BOT
    return TranscriptItem(
        id=str(message.pk),
        author=message.author,
        name=_speaker(message, bot),
        at=message.created_at,
        body=_body(message, turn.next_step if ends and turn else ""),
        turn=message.turn_id,
        tools=tools.get(execution.pk, ()) if by_bot and execution else (),
        receipt=receipt(execution) if by_bot and execution else None,
        status=turn_status(turn.state) if ends and turn else None,
        next_step=turn.next_step if ends and turn else "",
        delivery=deliveries.get(message.turn_id or 0) if by_bot else None,
    )


def _speaker(message: Message, bot: BotName) -> str:
    if message.author == Author.BOT:
        return bot.name
    return message.name or ("Note" if message.author == Author.SYSTEM else "Somebody")


def _body(message: Message, next_step: str) -> SafeString:
    """Return what was said: Markdown of bots, plain text of people, and notes without the next step that is shown apart."""
    if message.author == Author.BOT:
        return markdown.render(message.text)
    if message.author == Author.SYSTEM:
        text = message.text.removesuffix(next_step).strip() if next_step else message.text
        return mark_safe(linebreaks(text, autoescape=True))  # noqa: S308 - escaped by linebreaks
    return mark_safe(urlize(message.text, nofollow=True, autoescape=True))  # noqa: S308 - escaped by urlize


def receipt(execution: Execution) -> ReceiptView:
    """Return what one reply took."""
    return ReceiptView(
        model=execution.model,
        tokens_in=execution.input_uncached + execution.cache_write_5m + execution.cache_write_1h,
        tokens_cached=execution.cache_read,
        tokens_out=execution.output,
        cost_nano_usd=execution.cost_nano_usd,
        cost_basis=execution.cost_basis,
        queue_seconds=_between(execution.queued_at, execution.released_at),
        engine_seconds=_between(execution.released_at, execution.ended_at),
    )


def _between(start: dt.datetime | None, end: dt.datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def _tools_of(executions: Sequence[int]) -> dict[int, tuple[ToolLine, ...]]:
    rows = ExecutionEvent.objects.filter(execution__in=executions, kind__in=_TOOLS).order_by("execution_id", "sequence")
    grouped: dict[int, list[ExecutionEvent]] = defaultdict(list)
    for event in rows[:TOOL_EVENTS]:
        grouped[event.execution_id].append(event)
    return {
        key: tuple(part for part in parts_of(events, ended=True) if isinstance(part, ToolLine))
        for key, events in grouped.items()
    }


def parts_of(events: Sequence[ExecutionEvent], *, ended: bool = False) -> tuple[TextPart | ToolLine, ...]:
    """Return the text and tool calls of an execution in their order, tool calls folded to one line each."""
    parts: list[TextPart | ToolLine] = []
    started: dict[str, tuple[int, dt.datetime]] = {}
    denied = {event.payload["call"]: event.payload["reason"] for event in events if event.kind == EventKind.TOOL_DENIED}
    for event in events:
        payload = event.payload
        if event.kind == EventKind.TEXT:
            _add_text(parts, payload["text"])
        elif event.kind == EventKind.TOOL_STARTED:
            started[payload["call"]] = (len(parts), event.at)
            unfinished = Status("unknown", "No result") if ended else Status("running", "Running")
            parts.append(ToolLine(payload["call"], payload["tool"], payload["target"], unfinished))
        elif event.kind == EventKind.TOOL_FINISHED and payload["call"] in started:
            place, since = started[payload["call"]]
            parts[place] = _finished(parts[place], event, since, denied.get(payload["call"]))
    return tuple(parts)


def _add_text(parts: list[TextPart | ToolLine], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, TextPart):
        parts[-1] = TextPart(last.text + text)
    else:
        parts.append(TextPart(text))


def _finished(line: TextPart | ToolLine, event: ExecutionEvent, since: dt.datetime, denial: str | None) -> ToolLine:
    assert isinstance(line, ToolLine)  # noqa: S101 - `started` only ever points to tool lines
    status = Status("ok", "Done") if event.payload["ok"] else Status("failed", "Failed")
    if denial is not None:
        status = Status("held", "Denied")
    seconds = (event.at - since).total_seconds()
    return ToolLine(line.call, line.tool, line.target, status, seconds, denial or event.payload["summary"])


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
        label=_label(turn, position, parts),
        since=turn.admitted_at or turn.created_at,
        sequence=events[-1].sequence if events else 0,
        parts=parts,
        may_stop=turn.person_id == person.pk or Permission.TURN_STOP in person.permissions,
    )


def _label(turn: Turn, position: int, parts: tuple[TextPart | ToolLine, ...]) -> str:
    if turn.state == TurnState.QUEUED:
        return f"Position {position} in this conversation"
    if turn.execution and turn.execution.stop_requested_at:
        return "Stopping"
    if turn.execution and turn.execution.state == ExecutionState.QUEUED:
        return "Waiting for a free worker"
    if turn.state == TurnState.WAITING:
        return "A tool call waits for approval"
    return _doing(parts)


def _doing(parts: tuple[TextPart | ToolLine, ...]) -> str:
    last = parts[-1] if parts else None
    if isinstance(last, TextPart):
        return "Writing"
    if last and last.status.tone == "running":
        return f"Running tool {last.tool}"
    return "Thinking"
