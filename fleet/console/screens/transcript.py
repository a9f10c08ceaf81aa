"""The transcript: what was said, the tools that were used, and what each reply took."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from django.utils.html import linebreaks, urlize
from django.utils.safestring import SafeString, mark_safe

from conversations.models import Message
from conversations.states import Author
from execution import queries as execution_queries
from execution.models import Execution, ExecutionEvent
from execution.states import EventKind
from fleet.console import markdown
from fleet.console.presenters import BotName, ReceiptView, TextPart, ToolLine, TranscriptItem
from fleet.console.screens.deliveries import NOTHING_ON_ITS_WAY, OnTheirWay
from fleet.console.statuses import Status, turn_status

TOOL_EVENTS = 600
_TOOLS = (EventKind.TOOL_STARTED, EventKind.TOOL_FINISHED, EventKind.TOOL_DENIED)


def items_of(
    messages: Sequence[Message], bot: BotName, on_their_way: OnTheirWay = NOTHING_ON_ITS_WAY
) -> tuple[TranscriptItem, ...]:
    """Return messages as they are shown: with tools, receipts, and how far each got on its way to the person."""
    executions = [
        message.turn.execution_id
        for message in messages
        if message.author == Author.BOT and message.turn and message.turn.execution_id
    ]
    tools = _tools_of(executions) if executions else {}
    return tuple(_item(message, bot, tools, on_their_way) for message in messages)


def _item(
    message: Message, bot: BotName, tools: dict[int, tuple[ToolLine, ...]], on_their_way: OnTheirWay
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
        receipt=receipt(execution, asked_at=turn.created_at) if by_bot and turn and execution else None,
        status=turn_status(turn.state) if ends and turn else None,
        next_step=turn.next_step if ends and turn else "",
        delivery=on_their_way.of_message.get(message.pk),
        undelivered=on_their_way.after_message.get(message.pk, ()),
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


def receipt(execution: Execution, *, asked_at: dt.datetime) -> ReceiptView:
    """Return what one reply took. The waiting begins when its turn was made, as in the API and on the command line."""
    return ReceiptView(
        model=execution.model,
        tokens_in=execution.input_uncached + execution.cache_write_5m + execution.cache_write_1h,
        tokens_cached=execution.cache_read,
        tokens_out=execution.output,
        cost_nano_usd=execution.cost_nano_usd,
        cost_basis=execution.cost_basis,
        queue_seconds=_between(asked_at, execution.released_at),
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
    began: dict[str, dt.datetime] = {}
    for event in events:
        payload = event.payload
        if event.kind == EventKind.TEXT:
            _add_text(parts, payload["text"])
        elif event.kind in _TOOLS:
            began.setdefault(payload["call"], event.at)
            _add_tool(parts, event, (event.at - began[payload["call"]]).total_seconds(), ended=ended)
    return tuple(parts)


def waiting_in(events: Sequence[ExecutionEvent]) -> str:
    """Return what the provider waits for before it asks its API again, if that was the last that it told; else an empty text."""
    told = [event for event in events if event.kind not in execution_queries.BESIDE]
    return str(told[-1].payload.get("text", "")) if told and told[-1].kind == EventKind.RETRYING else ""


def _add_text(parts: list[TextPart | ToolLine], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, TextPart):
        parts[-1] = TextPart(last.text + text)
    else:
        parts.append(TextPart(text))


def _add_tool(parts: list[TextPart | ToolLine], event: ExecutionEvent, seconds: float, *, ended: bool) -> None:
    """Begin the line of a call, or carry it on. A refusal may be told before the call, between its begin and end, or after both."""
    payload = event.payload
    places = (at for at, part in enumerate(parts) if isinstance(part, ToolLine) and part.call == payload["call"])
    place = next(places, None)
    if place is None:
        if event.kind == EventKind.TOOL_FINISHED:
            return
        place = len(parts)
        unfinished = Status("unknown", "No result") if ended else Status("running", "Running")
        parts.append(ToolLine(payload["call"], payload["tool"], payload["target"], unfinished))
    line = parts[place]
    assert isinstance(line, ToolLine)  # noqa: S101 - `places` are those of tool lines
    parts[place] = _carried_on(line, event, seconds)


def _carried_on(line: ToolLine, event: ExecutionEvent, seconds: float) -> ToolLine:
    if event.kind == EventKind.TOOL_STARTED:
        return line
    payload = event.payload
    if event.kind == EventKind.TOOL_DENIED:
        return replace(line, status=Status("held", "Denied"), summary=payload["reason"], denied=True)
    if line.denied:  # that the provider then ends the call as failed is only how it takes note
        return replace(line, seconds=seconds)
    status = Status("ok", "Done") if payload["ok"] else Status("failed", "Failed")
    return replace(line, status=status, seconds=seconds, summary=payload["summary"])
