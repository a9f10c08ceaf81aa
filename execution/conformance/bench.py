"""Where a case runs: a provider, the model it talks to, and short ways to run a turn and to say what was not kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from execution.conformance import model
from execution.conformance.model import CheckModel
from execution.ports import ExecutionProvider, Finished, Prompt, ProviderEvent, Run, UsageReported, UserText
from execution.states import OutcomeClass
from execution.toolcalls import Judge, ToolCall, Verdict

TURN_SECONDS = 90.0
Event = TypeVar("Event")
Change = int | str | tuple[str, ...]


class Unkept(Exception):
    """The provider did something else; the text is a sentence."""


def need(kept: object, sentence: str) -> None:
    """Raise Unkept unless `kept`."""
    if not kept:
        raise Unkept(sentence)


def allow(_: ToolCall) -> Verdict:
    """Let every call run."""
    return Verdict(True)


@dataclass
class Seen:
    """What the CLI said of itself."""

    version: str = ""


@dataclass(frozen=True)
class Words:
    """What to say so that the model behaves so: `tool` makes it run `command`, which says `output`; `wait` keeps it from ending.

    `failures` are the words for each kind of failure, where they are not the check model's own.
    """

    tool: str = model.TOOL
    command: str = model.COMMAND
    output: str = "checked"
    wait: str = model.WAIT
    failures: Mapping[str, str] = field(default_factory=dict)

    def failure(self, kind: str) -> str:
        """Return what to say so that the model fails like this."""
        return self.failures.get(kind, f"{model.FAIL}{kind}")


@dataclass(frozen=True)
class Bench:
    """Where one case runs: a provider, the model it talks to, and the prompt of a session nobody else has."""

    provider: ExecutionProvider
    model: CheckModel
    prompt: Prompt
    seen: Seen = field(default_factory=Seen)
    words: Words = field(default_factory=Words)

    @property
    def workspace(self) -> Path:
        """Return the directory its tools run in."""
        return self.prompt.workspace

    @contextmanager
    def run(self, **changes: Change) -> Iterator[Run]:
        """Open a run, and see that nothing of it is left."""
        run = self.provider.open(replace(self.prompt, **changes))  # type: ignore[arg-type]
        try:
            yield run
        finally:
            run.close()
            need(run.kill(), "Something of it was still alive after its end.")

    def turn(self, said: str, *, judge: Judge = allow, **changes: Change) -> list[ProviderEvent]:
        """Run one whole turn; what it used beside what it told stands before its end."""
        with self.run(**changes) as run:
            run.prepare()
            hand_over(run, said, judge=judge)
            events = list(followed(run))
            return [*events[:-1], *map(UsageReported, run.unreported()), *events[-1:]]


def hand_over(run: Run, said: str, *, judge: Judge = allow) -> None:
    """Open the spend gate for this text."""
    run.release((UserText(str(uuid.uuid4()), said),), judge=judge)


def followed(run: Run, *, when_waiting: Callable[[], object] | None = None) -> Iterator[ProviderEvent]:
    """Yield the run's events, not for ever; `when_waiting` is called whenever nothing came for a while."""
    until = time.monotonic() + TURN_SECONDS
    for event in run.events(timeout=0.5):
        if event is not None:
            yield event
        elif when_waiting is not None:
            when_waiting()
        need(time.monotonic() < until, f"It had not ended after {TURN_SECONDS:.0f} seconds.")


def only(events: Sequence[ProviderEvent], kind: type[Event]) -> list[Event]:
    """Return the events of this kind."""
    return [event for event in events if isinstance(event, kind)]


def end_of(events: Sequence[ProviderEvent]) -> Finished:
    """Return the end of a turn, which is its last event and its only end."""
    ends = only(events, Finished)
    if len(ends) != 1 or events[-1] is not ends[0]:
        raise Unkept("Its events ended without an end." if not ends else "It ended more than once.")
    return ends[0]


def went_well(events: Sequence[ProviderEvent]) -> Finished:
    """Return the end of a turn that ended well. Raises Unkept."""
    end = end_of(events)
    need(end.outcome == OutcomeClass.OK, f"The turn ended as {end.outcome}: {end.sentence}")
    return end
