"""What a provider says, on its way into the database: cleaned, coalesced, counted, written in batches."""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from execution import ports
from execution.actions.recording import Line
from execution.cleaning import clean, storable
from execution.ports import ProviderEvent, Usage
from execution.retrying import Retrying
from execution.states import EventKind
from fleet.kernel import clock

log = structlog.get_logger(__name__)
COALESCE_SECONDS = 0.06
METER_SECONDS = 0.5
TOKEN_COLUMNS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
_LONGEST_TARGET, _LONGEST_SUMMARY = 500, 2000


class Transcript:
    """Collects the events of one attempt. `write(lines)` and `meter(usages)` are called with what is due, in that order.

    The first words are written at once, later ones at most every 60 ms; anything that is not text is never held back. Usage is
    metered when its message is complete, and twice a second while one is being written: at its end nothing is left to do.
    """

    def __init__(self, *, write: Callable[[list[Line]], None], meter: Callable[[list[Usage]], None]) -> None:
        self._write, self._post = write, meter
        self._lines: list[Line] = []
        self._text: list[str] = []
        self._said: list[str] = []
        self._asides: deque[Line] = deque()
        self._unmetered: dict[str, Usage] = {}
        self._usages: dict[str, Usage] = {}
        self._written_at = 0.0
        self._metered_at = self._overheard_at = time.monotonic()
        self._complete = False
        self._lasting: list[str] = []
        self.disbelieved = False  # the provider told of usage that cannot be true, so what it used is not known
        self.version = ""
        self.session_id = ""
        self.first_event_at: dt.datetime | None = None
        self.first_text_at: dt.datetime | None = None

    @property
    def text(self) -> str:
        """Return everything said so far."""
        return "".join(self._said)

    def tokens(self) -> dict[str, int]:
        """Return the tokens used so far, by column."""
        return {name: sum(getattr(usage, name) for usage in self._usages.values()) for name in TOKEN_COLUMNS}

    def usages(self) -> list[Usage]:
        """Return what every message has used so far, metered or not."""
        return list(self._usages.values())

    def told(self) -> dict[str, list[str]]:
        """Return what the person has to hear with the answer, each once, as a detail of the execution; nothing where nothing is."""
        return {"told": list(dict.fromkeys(self._lasting))} if self._lasting else {}

    def aside(self, kind: EventKind, **payload: Any) -> None:
        """Add a line from another thread, such as a refused tool call; it is written with the next batch."""
        self._asides.append((kind, payload))

    def take(self, event: ProviderEvent) -> None:
        """Note one event and write what is due."""
        self.first_event_at = self.first_event_at or clock.now()
        if isinstance(event, ports.TextDelta):
            self.first_text_at = self.first_text_at or clock.now()
            text = clean(event.text)
            self._text.append(text)
            self._said.append(text)
        elif isinstance(event, ports.UsageReported):
            self._note_usage(event.usage)
            self._complete = self._complete or event.complete
        elif not isinstance(event, ports.Finished):
            self._end_text()
            self._keep(event)
            self._lines.append(self._line(event))
        self.flush(only_due=True)

    def recall(self, event: ProviderEvent) -> None:
        """Note an event that another worker has written: it counts, and is not written again."""
        match event:
            case ports.TextDelta():
                self._said.append(clean(event.text))
            case ports.UsageReported():
                self._note_usage(event.usage)
            case _:
                self._keep(event)

    def _keep(self, event: ProviderEvent) -> None:
        """Remember what belongs to the end, whoever wrote the line."""
        match event:
            case ports.Started():
                self.version, self.session_id = event.version, event.session_id
            case ports.Notice(lasting=True):
                self._lasting.append(clean(event.text))

    def overhear(self, unreported: Callable[[], Sequence[Usage]], *, only_due: bool = False) -> None:
        """Note what was used beside what the events tell, or with `only_due` see twice a second whether there is any."""
        if not only_due or self._waited(self._overheard_at, METER_SECONDS):
            self._overheard_at = time.monotonic()
            for usage in unreported():
                self._note_usage(usage)

    def flush(self, *, only_due: bool = False) -> None:
        """Write and meter what is waiting, or with `only_due` what has waited long enough."""
        if not only_due or self._lines or self._asides or self._waited(self._written_at, COALESCE_SECONDS):
            lines = self.drain()
            if lines:
                self._write(lines)
                self._written_at = time.monotonic()
        if not only_due or self._complete or self._waited(self._metered_at, METER_SECONDS):
            self.meter()

    def meter(self) -> None:
        """Post the usage that was not posted yet."""
        self._complete = False
        if self._unmetered:
            self._post(list(self._unmetered.values()))
            self._unmetered.clear()
            self._metered_at = time.monotonic()

    def drain(self) -> list[Line]:
        """Return the lines that were not written yet, and forget them."""
        self._end_text()
        lines, self._lines = self._lines, []
        while self._asides:
            lines.append(self._asides.popleft())
        return [(kind, storable(payload)) for kind, payload in lines]

    def _waited(self, since: float, seconds: float) -> bool:
        return time.monotonic() - since >= seconds

    def _end_text(self) -> None:
        if self._text:
            self._lines.append((EventKind.TEXT, {"text": "".join(self._text)}))
            self._text.clear()

    def _note_usage(self, usage: Usage) -> None:
        """Keep the highest number of each unit: a message is reported early and again when it is complete."""
        if not usage.is_believable():
            log.warning("usage.not_believed", usage=str(usage)[:500])
            self.disbelieved = True
            return
        before = self._usages.get(usage.message_id)
        if before is not None:
            usage = usage.at_least(before)
        if usage != before:
            self._usages[usage.message_id] = self._unmetered[usage.message_id] = usage

    def _line(self, event: ProviderEvent) -> Line:
        match event:
            case ports.Started():
                return EventKind.STARTED, {"version": event.version, "model": event.model}
            case ports.ToolStarted():
                target = event.target[:_LONGEST_TARGET]
                return EventKind.TOOL_STARTED, {"call": event.call_id, "tool": event.tool, "target": target}
            case ports.ToolFinished():
                summary = event.summary[:_LONGEST_SUMMARY]
                return EventKind.TOOL_FINISHED, {"call": event.call_id, "ok": event.ok, "summary": summary}
            case ports.RateLimited():
                resets_at = event.resets_at.isoformat() if event.resets_at else None
                return EventKind.RATE_LIMIT, {"status": event.status, "resets_at": resets_at, "limit": event.kind}
            case ports.Notice():
                return EventKind.NOTICE, {"text": event.text}
            case Retrying():
                return EventKind.RETRYING, _waiting(event)
            case _:
                raise TypeError(f"no line for {type(event).__name__}")


def _waiting(event: Retrying) -> dict[str, Any]:
    at = event.at.isoformat() if event.at else None
    counted = {"attempt": event.attempt, "most": event.most}
    return {"text": event.text, "at": at, **counted, "cause": event.because.cause}
