"""What the mock says, step by step; directives in the prompt change it (see the README)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from execution import outcomes
from execution.outcomes import Vendor
from execution.ports import (
    Finished,
    Prompt,
    ProviderEvent,
    Started,
    TextDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    UsageReported,
    UserText,
)
from execution.providers.mock import reason
from execution.states import Cause, OutcomeClass
from execution.toolcalls import Judge, ToolCall

MODEL = "mock-1"
VERSION = "1"
WORD_SECONDS = 0.02
MOST_WORDS = 200_000  # anybody may ask for them
FOR_EVER = float("inf")
_DIRECTIVE = re.compile(r"\bmock:(?P<name>[a-z]+)(?:=(?P<value>\S+))?")
_CHARACTERS_PER_TOKEN = 4

_VENDOR = Vendor(name="The mock", account="The mock's account", key="It has none to put right.")
# What `mock:fail` may name: an outcome class, for which a cause stands here, or any cause of the table itself.
_CAUSES = {
    OutcomeClass.STOPPED: Cause.INTERRUPTED,
    OutcomeClass.LIMIT: Cause.USAGE_LIMIT,
    OutcomeClass.AUTH: Cause.AUTH,
    OutcomeClass.OVERLOAD: Cause.OVERLOADED,
    OutcomeClass.CONTEXT_FULL: Cause.TOO_LONG,
    OutcomeClass.BUDGET: Cause.RUN_BUDGET,
    OutcomeClass.ERROR: Cause.UNKNOWN,
    **{str(row.cause): row.cause for row in outcomes.TABLE},
}
# What no provider reports, since its worker sees it.
_SEEN_BY_WORKERS = {
    OutcomeClass.TIMEOUT: "It took too long.",
    OutcomeClass.GOVERNANCE: "A rule does not allow it.",
    OutcomeClass.LOST: "It was lost.",
}

Step = tuple[float, ProviderEvent | None]
"""Seconds to wait, and then what happens; None is a wait without an event."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the mock was asked: the words, without the directives, and the directives by name."""

    words: str
    directives: dict[str, str]

    @classmethod
    def of(cls, texts: tuple[UserText, ...]) -> Request:
        """Read the messages of a turn."""
        said = "\n\n".join(text.text for text in texts)
        directives = {found["name"]: found["value"] or "" for found in _DIRECTIVE.finditer(said)}
        return cls(_DIRECTIVE.sub("", said).strip(), directives)

    def seconds(self, name: str, default: float = 0.0) -> float:
        """Return a directive's value as seconds."""
        try:
            return float(self.directives.get(name, default))
        except ValueError:
            return default


def play(
    prompt: Prompt, texts: tuple[UserText, ...], judge: Judge, *, heard: Callable[[], tuple[UserText, ...]]
) -> Iterator[Step]:
    """Yield what happens in one turn. `heard` gives everything that was said until the answer begins, and ends the hearing."""
    request = Request.of(texts)
    if "crash" in request.directives:
        raise RuntimeError("The mock was asked to crash.")
    yield 0.0, Started(prompt.session_id, VERSION, MODEL)
    named = texts[-1].uuid
    yield 0.0, _usage(prompt, texts, answer="", named=named)
    yield request.seconds("slow"), None
    if "tool" in request.directives:
        yield from _tool(texts, request, judge)
    if "hang" in request.directives:
        yield FOR_EVER, None
    if "fail" in request.directives:
        yield 0.0, _failure(request.directives["fail"])
        return
    texts = heard()
    answer = _answer(Request.of(texts), prompt.chain)
    for word in re.findall(r"\S+\s*", answer):
        yield WORD_SECONDS, TextDelta(word)
    yield 0.0, _usage(prompt, texts, answer, named=named)
    yield 0.0, Finished(OutcomeClass.OK, text=answer, session_id=prompt.session_id)


def _tool(texts: tuple[UserText, ...], request: Request, judge: Judge) -> Iterator[Step]:
    """Ask to use a tool, as a model would; nothing is run."""
    name = request.directives["tool"] or "Bash"
    call = ToolCall(f"mock-call-{texts[-1].uuid}", name, {"command": "echo mock"})
    yield 0.0, ToolStarted(call.call_id, name, call.target, call.digest)
    verdict = judge(call)
    summary = "mock" if verdict.allow else verdict.reason
    yield request.seconds("slow"), ToolFinished(call.call_id, verdict.allow, summary)


def _failure(wanted: str) -> Finished:
    """Return the end that was asked for: an outcome class, or a cause of the table."""
    if wanted in _SEEN_BY_WORKERS:
        return Finished(OutcomeClass(wanted), sentence=f"The mock pretends: {_SEEN_BY_WORKERS[OutcomeClass(wanted)]}")
    if wanted not in _CAUSES:
        known = ", ".join(sorted({*_CAUSES, *_SEEN_BY_WORKERS}))
        return Finished(
            OutcomeClass.ERROR, sentence=f"The mock cannot fail like that. It can with mock:fail= and one of: {known}."
        )
    ruling = outcomes.ruling_of(_CAUSES[wanted], _VENDOR)
    return Finished.ruled(replace(ruling, sentence=f"The mock pretends: {ruling.sentence}"), details={})


def _answer(request: Request, chain: tuple[str, ...] = ()) -> str:
    if "words" in request.directives:
        wanted = int(min(max(1.0, request.seconds("words")), MOST_WORDS))
        return " ".join(f"word{number}" for number in range(1, wanted + 1))
    asked = request.words if len(request.words) <= 400 else request.words[:400] + "…"
    quoted = "\n".join(f"> {line}" for line in asked.splitlines())
    return (
        "I am the built-in mock: I show that messages arrive and answers come back, but I do not think, and I cost nothing.\n\n"
        f"You wrote:\n\n{quoted}\n\n"
        f"{reason.why(chain)}"
    )


def _usage(prompt: Prompt, texts: tuple[UserText, ...], answer: str, *, named: str) -> UsageReported:
    asked = len(prompt.system_prompt) + sum(len(text.text) for text in texts)
    return UsageReported(
        Usage(
            message_id=f"mock-{named}",
            model=MODEL,
            input_uncached=asked // _CHARACTERS_PER_TOKEN,
            output=len(answer) // _CHARACTERS_PER_TOKEN,
        )
    )
