"""What execution needs from outside: providers that think.

A provider turns one `Prompt` into a stream of typed events. It knows nothing of the database: the worker records what it yields.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from budgets.ports import LARGEST
from budgets.states import Billing
from execution.outcomes import Ruling
from execution.retrying import Retrying
from execution.states import Cause, OutcomeClass
from execution.toolcalls import Judge
from identities.ports import Connection
from identities.states import NetworkPolicy


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, as data; callers ask this instead of the provider's name."""

    name: str
    model: str = ""  # what it answers with when it does not know the bot's model; empty: it takes any
    models: str = ""  # how the names of those it knows begin, a regular expression; empty: it knows its own alone
    streams_text: bool = True
    resumes_sessions: bool = False
    forks_sessions: bool = False  # see `Prompt.forks`
    interrupts: bool = True
    steers: bool = False
    reports_cost: bool = False
    spawns_process: bool = True
    adopts: bool = False  # another worker can go on with a turn whose worker went away
    keeps_its_process: bool = True  # for the next turn of its session; see `Run.again`
    delegates: bool = False  # its model may let subagents work (tool `Agent`); see `Run.unreported`
    tells_context_full: bool = True
    tells_refusals: bool = True  # to the model, in the words of the judge
    tells_reset: bool = True  # when a limit is used up: the moment at which it starts anew
    counts_late: bool = False  # what a turn used is told at its end, if at all: one that told nothing may have spent
    counts_whole: bool = False  # a message is counted when it is whole: what one used that was cut off is never told

    def model_for(self, wanted: str) -> str:
        """Return the model it answers with, for a bot that asks for `wanted`."""
        knows = not self.model or (self.models and re.match(self.models, wanted))
        return wanted if knows else self.model


@dataclass(frozen=True, slots=True)
class UserText:
    """One message of a person inside a prompt; `uuid` is the inbox row's, the provider's idempotency key."""

    uuid: str
    text: str


@dataclass(frozen=True, slots=True)
class Confinement:
    """The walls around a bot's CLI. `allowed` are the hosts of its allowlist, `servers` those of its MCP servers, as `host[:port]`.

    `waived`: an administrator lets this bot run without a sandbox.
    """

    bot: str = ""
    network: str = NetworkPolicy.PROVIDER
    allowed: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    waived: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything a provider turn needs before its texts: two equal prompts can be answered by the same process.

    `session_turns` is how many turns the session has had: a process that was started before the last of them knows too little.
    Contains no secret: those travel in `environment` of the launch, never here.
    """

    system_prompt: str
    model: str
    workspace: Path
    home: Path
    session_id: str
    session_turns: int
    forks: str = ""  # the session whose memory this one begins with, and which stays as it is; of the first turn alone
    effort: str = ""
    max_turns: int = 30
    max_seconds: int = 900
    max_tool_calls: int = 100
    max_megabytes: int = 2048
    tools: tuple[str, ...] = ()
    mcp_config: Mapping[str, Connection] = field(default_factory=dict)  # by name; secrets stay sealed until the launch
    confinement: Confinement = Confinement()
    chain: tuple[str, ...] = field(default=(), compare=False)  # the bot's providers, for one that says why it answers

    @property
    def resume(self) -> bool:
        """Return whether there were turns before, which the provider is to remember."""
        return self.session_turns > 0 or self.forks != ""

    def next(self) -> Prompt:
        """Return the prompt of the turn after this one, should nothing change in between."""
        return replace(self, session_turns=self.session_turns + 1, forks="")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one provider message, in disjoint units. `message_id` is unique per provider message."""

    message_id: str
    model: str
    input_uncached: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    web_searches: int = 0

    def at_least(self, before: Usage) -> Usage:
        """Return this report with the higher number of each unit: a message is reported early, and again when it is complete."""
        return replace(self, **{unit: max(getattr(self, unit), getattr(before, unit)) for unit in _units()})

    def is_believable(self) -> bool:
        """Return whether a message can have used this."""
        return all(0 <= getattr(self, unit) <= LARGEST for unit in _units())


@cache
def _units() -> tuple[str, ...]:
    return tuple(unit.name for unit in fields(Usage) if unit.type == "int")


@dataclass(frozen=True, slots=True)
class Started:
    """The provider took the prompt; its session and version are known."""

    session_id: str
    version: str
    model: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer as it is written."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool call began; `target` is a short text such as a path or command, `digest` tells it from calls with another input."""

    call_id: str
    tool: str
    target: str
    digest: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool call ended; `summary` is bounded to 2,000 characters."""

    call_id: str
    ok: bool
    summary: str


@dataclass(frozen=True, slots=True)
class UsageReported:
    """Usage of one provider message. May be repeated for the same message with higher numbers: the last one counts.

    `complete` says that the message is written to its end, so that nothing is gained by waiting for more.
    """

    usage: Usage
    complete: bool = False


@dataclass(frozen=True, slots=True)
class RateLimited:
    """The login's limit state changed."""

    status: str
    resets_at: dt.datetime | None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth telling. `lasting`: the person hears it with the answer, too."""

    text: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The turn is over. Always the last event; `text` is the whole answer, `sentence` explains anything but ok."""

    outcome: OutcomeClass
    text: str = ""
    sentence: str = ""
    session_id: str = ""
    retry_at: dt.datetime | None = None
    cause: Cause | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def ruled(cls, ruling: Ruling, *, text: str = "", session_id: str = "", details: Mapping[str, Any]) -> Finished:
        """Return the end that the table of outcomes found."""
        return cls(
            ruling.outcome,
            text=text,
            sentence=ruling.sentence,
            session_id=session_id,
            retry_at=ruling.retry_at,
            cause=ruling.cause,
            details=details,
        )


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a provider has written down of a turn that nobody heard to its end; `is_whole` says that its answer is complete."""

    text: str
    usages: tuple[Usage, ...]
    is_whole: bool


ProviderEvent = (
    Started | TextDelta | ToolStarted | ToolFinished | UsageReported | RateLimited | Notice | Retrying | Finished
)


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process: enough to recognise it later although pids are reused. `started_at` is in seconds after boot.

    `marker` names its run in the environment of everything below it, and its door for another worker; empty when it has none.
    """

    pid: int
    started_at: float
    host: str
    boot_id: str
    marker: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose a turn is: the execution, and the epoch by which its worker owns it. A higher one takes it over."""

    execution: int
    epoch: int


class NotAdopted(Exception):
    """What another worker left cannot be gone on with."""


class NotPrepared(Exception):
    """The process could not be brought to the spend gate; nothing was spent. Carries the end the provider gives it."""

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished.sentence)
        self.finished = finished


class Run(Protocol):
    """One turn in progress. Methods are called from the worker's thread; `events` blocks."""

    def prepare(self) -> ProcessFacts | None:
        """Start the process and hold it at the spend gate; None for a provider without a process. Nothing is spent yet.

        Raises NotPrepared when it does not get there, also because `kill` was called meanwhile.
        """
        ...

    def release(self, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim | None = None) -> None:
        """Open the spend gate and hand over what was asked: from here on money may flow, and `judge` decides its tool calls.

        Both come only now, since messages may join the turn until this moment, and the process may have been there before it.
        With a `claim`, a provider that adopts lets the turn go on should this worker go away.
        """
        ...

    def settle(self) -> None:
        """The end of the turn is written: nobody needs to adopt it any more. Only after Finished, for a process that stays."""
        ...

    def leave(self) -> None:
        """Go away and let the turn go on; another worker adopts it. Only for a provider that adopts, after `release` with a claim."""
        ...

    def events(self, *, timeout: float) -> Iterator[ProviderEvent | None]:
        """Yield events as they come, None whenever `timeout` seconds pass without one; ends after Finished."""
        ...

    def unreported(self) -> Sequence[Usage]:
        """Return what was used so far beside what the events told: the highest counts of each message, which may be told as well.

        Cheap. While it runs that may be less than there is; once it is over it is all that can be known. Not after `settle`.
        """
        ...

    def interrupt(self) -> None:
        """Ask the provider to end politely; Finished(outcome=STOPPED) follows."""
        ...

    def kill(self) -> bool:
        """Kill the whole process tree and return whether it is proven gone. May be called again and from other threads."""
        ...

    def close(self) -> None:
        """Let go of everything; kills what is left."""
        ...

    def is_there(self) -> bool:
        """Return whether the process, once started, could still take a prompt. Cheap."""
        ...

    def struck(self) -> str:
        """Return which of its processes was ended by a signal that nobody here sent, as words after "because"; empty when none was.

        Only after `kill` has proven that all of it is gone. What ended by itself, however badly, was not struck.
        """
        ...

    def again(self) -> Run | None:
        """Return the next run of this session in the same process, which waits at the gate already; None when it cannot stay.

        Only after Finished. Who takes it closes it, and closes this one no more.
        """
        ...


class ExecutionProvider(Protocol):
    """A way to think."""

    capabilities: Capabilities

    def check(self) -> str:
        """Return an empty text when usable, else a sentence: what is missing and what to do. Cheap: asked at every admission."""
        ...

    def billing(self) -> Billing:
        """Return how its login pays: per token, or a flat subscription."""
        ...

    def login(self) -> str:
        """Return a name for the key or login in use, which is no secret and changes with it; empty when nothing has to be protected.

        A breaker guards it: a key that was replaced begins with a good name.
        """
        ...

    def version(self) -> str:
        """Return the version of what is installed, as its runs report it; empty when only a run can tell."""
        ...

    def warm_up(self) -> None:
        """Do once, when a worker starts, what the first run would otherwise wait for (imports, looking at the CLI's version)."""
        ...

    def open(self, prompt: Prompt) -> Run:
        """Return a run for this prompt; does not start anything."""
        ...

    def adopt(
        self, prompt: Prompt, process: ProcessFacts, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim
    ) -> Run:
        """Go on with the released turn that another worker left in this process, under a higher epoch.

        Its `events` begin at the beginning of the turn: they are the same, in the same order, as the other worker got. A tool call
        that got no answer is put to `judge` again. Such a run never stays for the next turn. Raises NotAdopted.
        """
        ...

    def recover(self, home: Path, session_id: str, uuid: str) -> Recovered | None:
        """Return what is on disk of the turn with this last message, when its process is gone; None when there is nothing."""
        ...
