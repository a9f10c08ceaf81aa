"""What changed in one conversation since the last look, as frames for its page. Read from PostgreSQL, whoever called."""

from __future__ import annotations

from typing import Any

from django.db.models import Max, Q

from conversations.models import Message, Turn
from conversations.states import TURN, TurnState
from execution import queries as execution_queries
from execution.models import ExecutionEvent
from execution.states import EventKind

Frame = dict[str, Any]
NOBODY = 0  # instead of an execution: what the page has is of one that has left the turn
EVENTS_PER_LOOK = 500
MESSAGES_PER_LOOK = 100

# What a page learns of an execution's events, by the names its script knows; everything else is not for the page.
_KINDS = {
    EventKind.TEXT: "text",
    EventKind.TOOL_STARTED: "tool_started",
    EventKind.TOOL_DENIED: "tool_denied",
    EventKind.TOOL_FINISHED: "tool_finished",
    EventKind.NOTICE: "state",
    EventKind.RETRYING: "state",
    EventKind.ERROR: "error",
}


class ChatFeed:
    """One page's place in one conversation. `busy` while a turn is open, `more` when one look was not enough."""

    def __init__(self, conversation_id: int, *, turn_id: int = 0, execution_id: int = 0, after: int = 0) -> None:
        """Begin after the event `after` of this turn's execution; other turns and executions are told from their beginning.

        Who does not know the execution means the one that is at work.
        """
        self.conversation_id = conversation_id
        self.execution_id: int | None = None
        self.busy = False
        self.more = False
        self._turn_id, self._after = turn_id, after
        self._told_of: int | None = execution_id or None
        self._states: dict[int, str] = {}
        self._message_id: int | None = None

    def look(self) -> list[Frame]:
        """Return the frames since the last look: events, then turns, then messages, and after the first look where we stand."""
        first = self._message_id is None
        turns = self._turns()
        frames = [*self._events(turns), *self._changes(turns), *self._messages()]
        if first:
            frames.append(
                {
                    "type": "sync",
                    "turn": self._turn_id,
                    "execution": self._told_of or None,
                    "last_seq": self._after,
                    "last_message": self._message_id,
                }
            )
        return frames

    def _turns(self) -> list[Turn]:
        """Return the open turns and those seen open before. Read before their events: one seen as ended can have no later event."""
        rows = Turn.objects.filter(conversation_id=self.conversation_id).only("pk", "state", "execution_id")
        return list(rows.filter(Q(state__in=TURN.live) | Q(pk__in=list(self._states))).order_by("pk"))

    def _events(self, turns: list[Turn]) -> list[Frame]:
        turn = self._followed(turns)
        self.execution_id = turn.execution_id if turn else None
        self.more = False
        if turn is None or turn.execution_id is None:
            if self._told_of is None and self._after:
                self._told_of = NOBODY
            return []
        taken_over = turn.pk == self._turn_id and self._told_of not in (None, turn.execution_id)
        if taken_over or turn.pk != self._turn_id:
            self._turn_id, self._after = turn.pk, 0
        self._told_of = turn.execution_id
        events = execution_queries.events_after(turn.execution_id, self._after, EVENTS_PER_LOOK)
        self.more = len(events) == EVENTS_PER_LOOK
        self._after = events[-1].sequence if events else self._after
        told = [_event(turn.pk, event) for event in events if event.kind in _KINDS]
        return [{**_state(turn), "anew": True}, *told] if taken_over else told

    def _followed(self, turns: list[Turn]) -> Turn | None:
        """Return the turn we have begun to follow until it was seen to the end, else the one that holds the lane."""
        holds = [turn for turn in turns if turn.execution_id is not None]
        known = next((turn for turn in holds if turn.pk == self._turn_id), None)
        return known or next((turn for turn in holds if turn.state in TURN.live), None)

    def _changes(self, turns: list[Turn]) -> list[Frame]:
        changed = [turn for turn in turns if self._states.get(turn.pk) != turn.state]
        # An ended turn is forgotten once all of its events were told.
        self._states = {
            turn.pk: turn.state for turn in turns if turn.state in TURN.live or (self.more and turn.pk == self._turn_id)
        }
        self.busy = bool(self._states)
        return [_state(turn) for turn in changed]

    def _messages(self) -> list[Frame]:
        """Return the messages since the last look; what stood there at the first look the page has fetched itself."""
        rows = Message.objects.filter(conversation_id=self.conversation_id)
        if self._message_id is None:
            self._message_id = rows.aggregate(last=Max("pk"))["last"] or 0
            return []
        fresh = list(
            rows.filter(pk__gt=self._message_id).order_by("pk").values_list("pk", flat=True)[:MESSAGES_PER_LOOK]
        )
        self._message_id = fresh[-1] if fresh else self._message_id
        address = f"/chat/{self.conversation_id}/messages/"
        return [{"type": "message", "id": message, "html_url": f"{address}{message}/"} for message in fresh]


def _state(turn: Turn) -> Frame:
    return {"type": "turn", "turn": turn.pk, "state": turn.state, "label": str(TurnState(turn.state).label)}


def _event(turn_id: int, event: ExecutionEvent) -> Frame:
    kind = _KINDS[EventKind(event.kind)]
    frame = {
        **event.payload,
        "type": "event",
        "turn": turn_id,
        "execution": event.execution_id,
        "seq": event.sequence,
        "kind": kind,
    }
    if kind == "state":
        frame["label"] = event.payload.get("text", "")
    return frame
