"""Why a running attempt must end before its provider says so, and the limits that say it."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Literal

from django.conf import settings

from execution.engine.circles import Circles
from execution.engine.waits import Waits
from execution.ports import Prompt, ProviderEvent, TextDelta, ToolFinished, ToolStarted, UsageReported
from execution.states import Cause, OutcomeClass
from execution.toolcalls import DELEGATES

GRACE_SECONDS = 3.0  # what an interrupted provider gets before its processes are killed
LONGEST_ANSWER = 1024 * 1024  # bytes; nobody reads more, and every reader has to hold it


@dataclass(frozen=True, slots=True)
class Halt:
    """The end somebody else decided on. `at_once` kills without asking; `hears_out` still takes what the provider had said by then."""

    outcome: OutcomeClass
    sentence: str
    at_once: bool = False
    give_back: str = ""  # why a turn that has not begun is queued again; empty: it ends as well
    hears_out: bool = False
    cause: Cause | Literal[""] = ""
    retry_at: dt.datetime | None = None

    def outranks(self, other: Halt | None) -> bool:
        """Return whether this one replaces what was decided before: killing beats asking, else the first stands."""
        return other is None or (self.at_once and not other.at_once)


class Limits:
    """The bounds of one attempt, from the moment its spend gate opened."""

    def __init__(
        self, *, seconds: float, tool_calls: int, stall_seconds: float, repeats: int = 0, patience: float = float("inf")
    ) -> None:
        self._seconds, self._tool_calls, self._stall = seconds, tool_calls, stall_seconds
        self._circles = Circles(repeats)
        self._began = self._sign_of_life = time.monotonic()
        self._open_tools: set[str] = set()
        self._delegated: set[str] = set()  # of these, the subagents'
        self._unheard = False
        self._waits = Waits(patience)
        self._waited = False  # it was ended because it waits
        self.called = 0
        self.written = 0
        self.is_in_a_message = False  # it writes one that is not counted yet

    @classmethod
    def of(cls, prompt: Prompt) -> Limits:
        """Return the bounds of a turn: its bot's, and those of the installation."""
        return cls(
            seconds=prompt.max_seconds,
            tool_calls=prompt.max_tool_calls,
            stall_seconds=settings.FLEET_STALL_SECONDS,
            repeats=settings.FLEET_REPEATED_CALLS,
            patience=settings.FLEET_RETRY_SECONDS,
        )

    def began_ago(self, seconds: float) -> None:
        """Count from when the gate was opened, although this worker came later."""
        self._began = time.monotonic() - seconds

    def hear(self, event: ProviderEvent, *, ending: bool = False) -> None:
        """Note a sign of life, and what it uses of the bounds. `ending`: the provider has been told to stop."""
        self.alive()
        self._waits.hear(event)
        match event:
            case UsageReported(complete=True):
                self.is_in_a_message = False
            case TextDelta():
                self.is_in_a_message = True
                self.written += len(event.text.encode("utf-8", "replace"))
            case ToolStarted():
                self.is_in_a_message = True
                self.tool_started(event)
            case ToolFinished():
                self.tool_finished(event.call_id)
        if ending and isinstance(event, ToolFinished) and not event.ok:
            return  # it was cut off with its turn, and nobody is told what came of it
        if isinstance(event, ToolFinished | TextDelta | ToolStarted | UsageReported):
            self._unheard = isinstance(event, ToolFinished) and not self._open_tools
        if isinstance(event, ToolFinished):
            self._delegated.discard(event.call_id)

    def alive(self) -> None:
        """Note a sign of life."""
        self._sign_of_life = time.monotonic()

    def tool_started(self, call: ToolStarted) -> None:
        """Count a tool call; while it runs, silence is no stall."""
        self.called += 1
        self._open_tools.add(call.call_id)
        if call.tool == DELEGATES:
            self._delegated.add(call.call_id)
        self._circles.hear(call.tool, call.digest)

    def tool_finished(self, call_id: str) -> None:
        """Note that the tool is done."""
        self._open_tools.discard(call_id)

    @property
    def is_unheard(self) -> bool:
        """Return whether the model may have been asked for what nobody was told of: its tools are done, or a subagent is at work."""
        return self._unheard or bool(self._delegated)

    @property
    def is_refused(self) -> bool:
        """Return whether nothing is under way that could cost: the last call failed, and the provider waits before it asks again.

        One that does not say until when (Codex) is believed to wait where it was ended for that: it obeys its API in silence.
        """
        if self._waits.because is None:
            return False
        return time.monotonic() < self._waits.until or (self._waited and self._waits.at is None)

    def reached(self) -> Halt | None:
        """Return the halt of the first limit that is reached, or None."""
        now = time.monotonic()
        if now - self._began > self._seconds:
            return self._out_of_time()
        if self._waits.too_long and not self.called and not self.written:
            return self._of_waiting()
        if not self._open_tools and now - max(self._sign_of_life, self._waits.until) > self._stall:
            return self._of_waiting() or Halt(
                OutcomeClass.TIMEOUT,
                f"The provider gave no sign of life for {self._stall:.0f} seconds, so it was stopped. Please try again.",
                cause=Cause.SILENCE,
            )
        return self._too_much()

    def _out_of_time(self) -> Halt:
        because = self._waits.because
        why = f" At the end it was waiting to ask again: {because.sentence}" if because else ""
        return Halt(
            OutcomeClass.TIMEOUT,
            f"It took longer than the {self._seconds / 60:.0f} minutes this bot may work on one turn, so it was stopped. "
            f"Ask for less at once, or raise the bot's limit.{why}",
            cause=Cause.TIME,
        )

    def _of_waiting(self) -> Halt | None:
        """Return the end of a provider that waits, as what it waits for; None when it does not."""
        because = self._waits.because
        if because is None:
            return None
        self._waited = True
        return Halt(
            because.outcome,
            because.sentence,
            cause=because.cause,
            retry_at=because.retry_at or self._waits.at,
        )

    def _too_much(self) -> Halt | None:
        if self.called > self._tool_calls:
            return Halt(
                OutcomeClass.LIMIT,
                f"It used more than the {self._tool_calls} tool calls this bot may make in one turn, so it was stopped. "
                "Ask for less at once, or raise the bot's limit.",
                cause=Cause.TOOL_CALLS,
            )
        if self.written > LONGEST_ANSWER:
            return Halt(
                OutcomeClass.LIMIT,
                "The answer grew longer than 1 MB, so it was cut off here. Ask for a shorter one, or for a file.",
                cause=Cause.OUTPUT,
            )
        if self._circles.round:
            return Halt(OutcomeClass.LIMIT, self._circles.sentence, cause=Cause.LOOP)
        return None
