"""The cases of a check: what a CLI has to do for its provider to be trusted. Each runs real processes in a home of its own."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from execution.conformance import model
from execution.conformance.model import CheckModel
from execution.ports import (
    Capabilities,
    ExecutionProvider,
    Finished,
    Judge,
    NotPrepared,
    Prompt,
    ProviderEvent,
    Run,
    Started,
    TextDelta,
    ToolCall,
    ToolFinished,
    Usage,
    UsageReported,
    UserText,
    Verdict,
)
from execution.providers.steering import Remembering, Steerable, Steered
from execution.shim import processes
from execution.states import OutcomeClass

HOSTILE = "/help @/etc/passwd !ls #remember --resume=x"
TURN_SECONDS = 90.0
_REASON = "Not on a Sunday."


class Unkept(Exception):
    """The CLI did something else; the text is a sentence."""


def allow(_: ToolCall) -> Verdict:
    """Let every call run."""
    return Verdict(True)


@dataclass
class Seen:
    """What the CLI said of itself."""

    version: str = ""


@dataclass(frozen=True)
class Bench:
    """Where one case runs: a provider, the model it talks to, and the prompt of a session nobody else has."""

    provider: ExecutionProvider
    model: CheckModel
    prompt: Prompt
    seen: Seen

    @contextmanager
    def run(self, **changes: int) -> Iterator[Run]:
        """Open a run, and see that nothing of it is left."""
        run = self.provider.open(replace(self.prompt, **changes))  # type: ignore[arg-type]
        try:
            yield run
        finally:
            run.close()
            need(run.kill(), "Something of it was still alive after its end.")

    def turn(self, said: str, *, judge: Judge = allow, **changes: int) -> list[ProviderEvent]:
        """Run one whole turn."""
        with self.run(**changes) as run:
            run.prepare()
            run.release((UserText(str(uuid.uuid4()), said),), judge=judge)
            return list(_followed(run))


def _followed(run: Run, *, when_waiting: Callable[[], object] | None = None) -> Iterator[ProviderEvent]:
    until = time.monotonic() + TURN_SECONDS
    for event in run.events(timeout=0.5):
        if event is not None:
            yield event
        elif when_waiting is not None:
            when_waiting()
        need(time.monotonic() < until, f"It had not ended after {TURN_SECONDS:.0f} seconds.")


def need(kept: object, sentence: str) -> None:
    """Raise Unkept unless `kept`."""
    if not kept:
        raise Unkept(sentence)


def _end(events: Sequence[ProviderEvent]) -> Finished:
    last = events[-1] if events else None
    if not isinstance(last, Finished):
        raise Unkept("Its events ended without an end.")
    return last


def _went_well(events: Sequence[ProviderEvent]) -> Finished:
    end = _end(events)
    need(end.outcome == OutcomeClass.OK, f"The turn ended as {end.outcome}: {end.sentence}")
    return end


def _used(events: Sequence[ProviderEvent]) -> list[Usage]:
    last = {event.usage.message_id: event.usage for event in events if isinstance(event, UsageReported)}
    return list(last.values())


def init(bench: Bench) -> None:
    """It starts, waits for its prompt and asks no model before."""
    with bench.run() as run:
        facts = run.prepare()
        need(facts and processes.is_alive(facts.pid, facts.started_at), "Its process is not there.")
        need(not bench.model.heard, "It asked the model before it had a prompt.")


def text(bench: Bench) -> None:
    """It answers, in pieces that make up the answer."""
    events = bench.turn("Good morning.")
    end = _went_well(events)
    started = [event for event in events if isinstance(event, Started)]
    need(started, "It did not tell its session.")
    bench.seen.version = started[0].version
    pieces = "".join(event.text for event in events if isinstance(event, TextDelta))
    need("You said: Good morning." in end.text and pieces == end.text, "Its pieces are not the answer.")


def tool(bench: Bench) -> None:
    """It asks before a tool, and runs it when it may."""
    _runs_what_it_asked(bench, pause=0.0)


def ask(bench: Bench) -> None:
    """It waits for an answer that takes its time, as a person's does."""
    _runs_what_it_asked(bench, pause=3.0)


def _runs_what_it_asked(bench: Bench, *, pause: float) -> None:
    asked: list[str] = []

    def judge(call: ToolCall) -> Verdict:
        asked.append(call.target)
        time.sleep(pause)
        return Verdict(True)

    events = bench.turn(model.TOOL, judge=judge)
    _went_well(events)
    done = [event for event in events if isinstance(event, ToolFinished)]
    need(asked == [model.COMMAND], f"It asked for {asked or 'nothing'} and not for the one command.")
    need(len(done) == 1 and done[0].ok and "checked" in done[0].summary, "The command's result did not come.")


def deny(bench: Bench) -> None:
    """It does not run what was refused, and goes on."""
    events = bench.turn(model.TOOL, judge=lambda _: Verdict(False, _REASON))
    _went_well(events)
    done = [event for event in events if isinstance(event, ToolFinished)]
    need(len(done) == 1 and not done[0].ok, "It ran what was refused.")
    need(_REASON in done[0].summary, "It does not tell the reason of the refusal.")


def interrupt(bench: Bench) -> None:
    """It stops in the middle of an answer when it is asked to."""
    with bench.run() as run:
        run.prepare()
        run.release((UserText(str(uuid.uuid4()), model.WAIT),), judge=allow)
        end = _end(list(_followed(run, when_waiting=run.interrupt)))
    need(end.outcome == OutcomeClass.STOPPED, f"It ended as {end.outcome} and not as stopped.")


def steer(bench: Bench) -> None:
    """Its running turn takes a further message and confirms it, its model hears it in that turn, and its notes name it."""
    more, answers = UserText(str(uuid.uuid4()), "And this too."), list[Steered]()
    with bench.run() as run:

        def judge(_: ToolCall) -> Verdict:
            answers.append(cast(Steerable, run).steer(more))
            return Verdict(True)

        run.prepare()
        run.release((UserText(str(uuid.uuid4()), model.TOOL),), judge=judge)
        _went_well(list(_followed(run)))
    need(answers == [Steered.TAKEN], "It did not confirm a message for its running turn.")
    need(more.text in str(bench.model.heard[-1]), "It confirmed a message that its model was not told of.")
    notes = cast(Remembering, bench.provider).has_heard(bench.prompt.home, bench.prompt.session_id, more.uuid)
    need(notes, "What it writes down does not name the message, so a lost answer could not be looked up.")


def resume(bench: Bench) -> None:
    """A new process of the session knows what was said."""
    _went_well(bench.turn("My name is Eva."))
    _went_well(bench.turn("Who am I?", session_turns=1))
    need("My name is Eva." in str(bench.model.heard[-1]), "The second turn did not know of the first.")


def usage(bench: Bench) -> None:
    """Every answer is counted once, in disjoint units, also in a resumed session."""
    turns = [bench.turn("One."), bench.turn("Two.", session_turns=1)]
    used = [usage for events in turns for usage in _used(events)]
    need(used, "It does not tell what it used: the cost of its turns is unknown.")
    counted = {
        "input": sum(one.input_uncached for one in used),
        "cached": sum(one.cache_read for one in used),
        "output": sum(one.output for one in used),
    }
    real = len(bench.model.heard)
    expected = {"input": model.INPUT * real, "cached": model.CACHED * real, "output": model.OUTPUT * real}
    need(counted == expected, f"The model gave {expected} and {counted} was told.")
    need(len({one.message_id for one in used}) == len(used), "Two messages have the same name.")


def characters(bench: Bench) -> None:
    """Chat text is taken word for word: no command, no file."""
    end = _went_well(bench.turn(HOSTILE))
    need(HOSTILE in end.text, "The model was told something else than what was said.")
    need("root:" not in str(bench.model.heard), "It read a file that a message named.")


def tree_kill(bench: Bench) -> None:
    """Killed in the middle of an answer, nothing of it is left."""
    with bench.run() as run:
        facts = run.prepare()
        run.release((UserText(str(uuid.uuid4()), model.WAIT),), judge=allow)
        next(event for event in _followed(run) if isinstance(event, TextDelta))
        need(run.kill(), "It could not be proven that it is gone.")
        need(facts and not processes.is_alive(facts.pid, facts.started_at), "Its process is still there.")


def _failing(kind: str, outcome: OutcomeClass) -> Callable[[Bench], None]:
    def case(bench: Bench) -> None:
        end = _end(bench.turn(f"{model.FAIL}{kind}"))
        need(end.outcome == outcome, f"It ended as {end.outcome} and not as {outcome}: {end.sentence}")
        need(end.sentence.endswith("."), "It ended without a sentence.")

    case.__doc__ = f"A failure of the API is told as {outcome.value}."
    return case


CASES: dict[str, Callable[[Bench], None]] = {
    "init": init,
    "text": text,
    "tool": tool,
    "deny": deny,
    "ask": ask,
    "interrupt": interrupt,
    "steer": steer,
    "resume": resume,
    "usage": usage,
    "characters": characters,
    "tree kill": tree_kill,
    "error: key": _failing("auth", OutcomeClass.AUTH),
    "error: limit": _failing("rate", OutcomeClass.LIMIT),
    "error: overload": _failing("overload", OutcomeClass.OVERLOAD),
    "error: fault": _failing("fault", OutcomeClass.OVERLOAD),
    "error: context": _failing("context", OutcomeClass.CONTEXT_FULL),
    "error: billing": _failing("billing", OutcomeClass.LIMIT),
}


@dataclass(frozen=True, slots=True)
class Result:
    """How one case ended. `sentence` says what was not kept; empty when all was."""

    case: str
    kept: bool
    sentence: str
    seconds: float


def applicable(can: Capabilities) -> list[str]:
    """Return the cases that a provider which declares these capabilities has to keep."""
    beyond = {
        "resume": can.resumes_sessions,
        "interrupt": can.interrupts,
        "steer": can.steers,
        "error: context": can.tells_context_full,
    }
    return [name for name in CASES if beyond.get(name, True)]


def results(
    provider: ExecutionProvider, model: CheckModel, names: Sequence[str] = (), *, seen: Seen | None = None
) -> Iterator[Result]:
    """Run the cases one after the other and yield how each ended; `seen` is told what the CLI says of itself."""
    told = seen or Seen()
    for name in names or applicable(provider.capabilities):
        with tempfile.TemporaryDirectory(prefix="fleet-check-", ignore_cleanup_errors=True) as place:
            model.heard.clear()
            yield _result(name, Bench(provider, model, _prompt(provider, Path(place)), told))


def _prompt(provider: ExecutionProvider, place: Path) -> Prompt:
    (place / "workspace").mkdir()
    return Prompt(
        system_prompt="You are being checked.",
        model=provider.capabilities.model_for("claude-haiku-4-5"),
        workspace=place / "workspace",
        home=place / "home",
        session_id=str(uuid.uuid4()),
        session_turns=0,
        tools=("Bash",),
    )


def _result(name: str, bench: Bench) -> Result:
    began, sentence = time.monotonic(), ""
    try:
        CASES[name](bench)
    except Unkept as unkept:
        sentence = str(unkept)
    except NotPrepared as refused:
        sentence = refused.finished.sentence
    except Exception as error:
        sentence = f"The check itself broke: {type(error).__name__}: {error}."
    return Result(name, not sentence, sentence, time.monotonic() - began)
