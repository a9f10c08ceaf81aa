"""The cases of a check: what a CLI has to do for its provider to be trusted. Each runs real processes in a home of its own.

The contract suite of the tests runs the same cases, and has only what needs more than a check may do on an operator's machine.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Sequence
from typing import cast

from execution.conformance import model
from execution.conformance.bench import Bench, end_of, followed, hand_over, need, only, went_well
from execution.ports import (
    Capabilities,
    Notice,
    ProviderEvent,
    Started,
    TextDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    UsageReported,
    UserText,
)
from execution.providers.steering import Remembering, Steerable, Steered
from execution.shim import processes
from execution.states import OutcomeClass
from execution.toolcalls import DELEGATES, ToolCall, Verdict

HOSTILE = "/help @/etc/passwd !ls #remember --resume=x"
STRANGE = "rtl \u202e and \x07"
_REASON = "Not on a Sunday."
_PUT_OFF = "This is put off until a person has decided it; do not try it again before."
# The model is asked, then its subagent, which is told what its tool gave; and the model is told what that one found.
_WITH_SUBAGENT = 4
Case = Callable[[Bench], None]


def init(bench: Bench) -> None:
    """It starts, waits for its prompt and asks no model before."""
    with bench.run() as run:
        facts = run.prepare()
        need(facts and processes.is_alive(facts.pid, facts.started_at), "Its process is not there.")
        need(not bench.model.heard, "It asked the model before it had a prompt.")


def text(bench: Bench) -> None:
    """It answers, in pieces that make up the answer."""
    events = bench.turn("Good morning.")
    end, started = went_well(events), only(events, Started)
    need(started, "It did not tell its session.")
    bench.seen.version = started[0].version
    pieces = "".join(event.text for event in only(events, TextDelta))
    need("Good morning." in end.text and pieces == end.text, "Its pieces are not the answer.")


def tool(bench: Bench) -> None:
    """It asks before a tool, and runs it when it may."""
    _runs_what_it_asked(bench, pause=0.0)


def ask(bench: Bench) -> None:
    """It waits for an answer that takes its time, as a person's does."""
    _runs_what_it_asked(bench, pause=2.0)


def _runs_what_it_asked(bench: Bench, *, pause: float) -> None:
    asked: list[tuple[str, str]] = []

    def judge(call: ToolCall) -> Verdict:
        asked.append((call.tool, call.target))
        time.sleep(pause)
        return Verdict(True)

    events = bench.turn(bench.words.tool, judge=judge)
    went_well(events)
    begun, done = only(events, ToolStarted), only(events, ToolFinished)
    need(asked == [("Bash", bench.words.command)], f"It asked for {asked or 'nothing'} and not for the one command.")
    need([(one.tool, one.target) for one in begun] == asked, "It did not tell which command it ran.")
    need(len(done) == 1 and done[0].ok and bench.words.output in done[0].summary, "The command's result did not come.")
    need(done[0].call_id == begun[0].call_id, "The command's result has another name than its beginning.")


def deny(bench: Bench) -> None:
    """It does not run what was refused, and goes on."""
    _is_refused(bench, bench.words.tool, reason=_REASON)


def defer(bench: Bench) -> None:
    """A call that is put off does not run and its turn ends well; once approved, the session runs exactly that call, once."""
    (put_off,) = _is_refused(bench, model.ONCE, reason=_PUT_OFF)
    runs = bench.workspace / model.RUNS
    need(not runs.exists(), "It ran what was put off.")
    asked: list[ToolCall] = []

    def judge(call: ToolCall) -> Verdict:
        asked.append(call)
        return Verdict(call.digest == put_off.digest and len(asked) == 1, "Only the one call is approved.")

    went_well(bench.turn(f"A person has approved it. {model.ONCE}", judge=judge, session_turns=1))
    told = _PUT_OFF in str(bench.model.heard[-1]) or not bench.provider.capabilities.tells_refusals
    need(told, "The session does not know any more that the call was put off.")
    need([call.digest for call in asked] == [put_off.digest], "It asked for something else than what was approved.")
    need(runs.exists() and len(runs.read_text().splitlines()) == 1, "The approved call did not run exactly once.")


def _is_refused(bench: Bench, said: str, *, reason: str) -> list[ToolCall]:
    """See that a refused call does not run, and that the model is told why; return what was asked for."""
    asked: list[ToolCall] = []

    def judge(call: ToolCall) -> Verdict:
        asked.append(call)
        return Verdict(False, reason)

    events = bench.turn(said, judge=judge)
    went_well(events)
    done = only(events, ToolFinished)
    need(len(done) == 1 and not done[0].ok, "It ran what was refused.")
    need(len(asked) == 1, f"It asked {len(asked)} times for one call.")
    need(reason in done[0].summary, "It does not tell the reason of the refusal.")
    return asked


def interrupt(bench: Bench) -> None:
    """It stops in the middle of an answer when it is asked to."""
    with bench.run() as run:
        run.prepare()
        hand_over(run, bench.words.wait)
        end = end_of(list(followed(run, when_waiting=run.interrupt)))
    need(end.outcome == OutcomeClass.STOPPED, f"It ended as {end.outcome} and not as stopped.")


def steer(bench: Bench) -> None:
    """Its running turn takes a further message and confirms it, its model hears it in that turn, and its notes name it."""
    more, answers = UserText(str(uuid.uuid4()), "And this too."), list[Steered]()
    with bench.run() as run:

        def judge(_: ToolCall) -> Verdict:
            answers.append(cast(Steerable, run).steer(more))
            return Verdict(True)

        run.prepare()
        hand_over(run, bench.words.tool, judge=judge)
        went_well(list(followed(run)))
    need(answers == [Steered.TAKEN], "It did not confirm a message for its running turn.")
    need(more.text in str(bench.model.heard[-1]), "It confirmed a message that its model was not told of.")
    notes = cast(Remembering, bench.provider).has_heard(bench.prompt.home, bench.prompt.session_id, more.uuid)
    need(notes, "What it writes down does not name the message, so a lost answer could not be looked up.")


def resume(bench: Bench) -> None:
    """A new process of the session knows what was said."""
    first = went_well(bench.turn("My name is Eva."))
    events = bench.turn("Who am I?", session_turns=1)
    need(went_well(events).session_id == first.session_id, "The second turn was of another session.")
    need("My name is Eva." in str(bench.model.heard[-1]), "The second turn did not know of the first.")
    need(not only(events, Notice), "It told of a session that was lost, and none was.")


def fork(bench: Bench) -> None:
    """A branch of a session knows what was said there and goes on alone, counted alone; the session goes on as if there were none."""
    branch = str(uuid.uuid4())
    went_well(bench.turn("My name is Eva."))
    told = len(bench.model.heard)
    events = bench.turn("Who am I?", session_id=branch, forks=bench.prompt.session_id)
    need(went_well(events).session_id == branch, "The branch was not the session that was asked for.")
    need("My name is Eva." in str(bench.model.heard[-1]), "The branch did not know what it had branched off.")
    need(not only(events, Notice), "It told of a session that was lost, and none was.")
    used = sum(one.input_uncached for one in _used(events))
    need(used == model.INPUT * (len(bench.model.heard) - told), "What was used before the branch was counted again.")
    went_well(bench.turn("And then?", session_turns=1))
    need("Who am I?" not in str(bench.model.heard[-1]), "The session that was left has heard of its branch.")
    went_well(bench.turn("Again?", session_id=branch, session_turns=1))
    heard = str(bench.model.heard[-1])
    need("My name is Eva." in heard and "Who am I?" in heard, "The branch did not know of its own first turn.")
    need("And then?" not in heard, "The branch has heard of what was said later in the session that it had left.")


def usage(bench: Bench) -> None:
    """Every answer is counted once, in disjoint units, however its end tells it, also in a resumed session."""
    turns = [bench.turn(f"One. {model.BRIEF}"), bench.turn("Two.", session_turns=1)]
    used = [usage for events in turns for usage in _used(events)]
    need(used, "It does not tell what it used: the cost of its turns is unknown.")
    _all_counted(used, len(bench.model.heard))
    need(len({one.message_id for one in used}) == len(used), "Two messages have the same name.")


def subagent(bench: Bench) -> None:
    """What a subagent uses is counted as well, also in a resumed session."""
    for turns in (0, 1):
        before = len(bench.model.heard)
        events = bench.turn(model.DELEGATE, session_turns=turns, tools=(DELEGATES, "Bash"))
        went_well(events)
        asked, used = len(bench.model.heard) - before, _used(events)
        need(asked == _WITH_SUBAGENT, f"No subagent worked: {asked} requests came and not {_WITH_SUBAGENT}.")
        _all_counted(used, asked)


def _all_counted(used: Sequence[Usage], requests: int) -> None:
    """See that what so many requests used was told, in disjoint units."""
    counted = {
        "input": sum(one.input_uncached for one in used),
        "cached": sum(one.cache_read for one in used),
        "output": sum(one.output for one in used),
    }
    each = {"input": model.INPUT, "cached": model.CACHED, "output": model.OUTPUT}
    expected = {unit: number * requests for unit, number in each.items()}
    need(counted == expected, f"The model gave {expected} and {counted} was told.")


def _used(events: Sequence[ProviderEvent]) -> list[Usage]:
    """Return what each message used, as the ledger has it: the highest number of each unit that was told."""
    used: dict[str, Usage] = {}
    for told in only(events, UsageReported):
        used[told.usage.message_id] = told.usage.at_least(used.get(told.usage.message_id, told.usage))
    return list(used.values())


def characters(bench: Bench) -> None:
    """Chat text is taken word for word: no command, no file."""
    end = went_well(bench.turn(f"{HOSTILE}\n{STRANGE}"))
    need(HOSTILE in end.text, "The model was told something else than what was said.")
    need("root:" not in str(bench.model.heard), "It read a file that a message named.")


def tree_kill(bench: Bench) -> None:
    """Killed in the middle of an answer, nothing of it is left, and nothing more is told."""
    with bench.run() as run:
        facts = run.prepare()
        hand_over(run, bench.words.wait)
        events = followed(run)
        next(event for event in events if isinstance(event, TextDelta))
        need(run.kill(), "It could not be proven that it is gone.")
        need(facts and not processes.is_alive(facts.pid, facts.started_at), "Its process is still there.")
        for _ in events:
            pass  # until they end


def window(bench: Bench) -> None:
    """A used-up limit is told with the moment at which it starts anew, so that nothing is tried before."""
    end = _failed(bench, "window", OutcomeClass.LIMIT)
    named = dt.datetime.fromtimestamp(bench.model.window_ends, dt.UTC)
    need(end == named, f"The limit starts anew at {named}, and {end or 'no moment'} was told.")


def _failing(kind: str, *outcomes: OutcomeClass) -> Case:
    def case(bench: Bench) -> None:
        _failed(bench, kind, *outcomes)

    case.__doc__ = f"A failure of the API is told as {' or '.join(outcomes)}."
    return case


def _failed(bench: Bench, kind: str, *outcomes: OutcomeClass) -> dt.datetime | None:
    """See that this failure is told as one of these; return when to try again, if that was told."""
    end = end_of(bench.turn(bench.words.failure(kind)))
    need(end.outcome in outcomes, f"It ended as {end.outcome} and not as {' or '.join(outcomes)}: {end.sentence}")
    need(end.sentence.endswith("."), "It ended without a sentence.")
    return end.retry_at


CASES: dict[str, Case] = {
    "init": init,
    "text": text,
    "tool": tool,
    "deny": deny,
    "ask": ask,
    "defer": defer,
    "interrupt": interrupt,
    "steer": steer,
    "resume": resume,
    "fork": fork,
    "usage": usage,
    "subagent": subagent,
    "characters": characters,
    "tree kill": tree_kill,
    "error: key": _failing("auth", OutcomeClass.AUTH),
    "error: limit": _failing("rate", OutcomeClass.LIMIT),
    "error: window": window,
    "error: overload": _failing("overload", OutcomeClass.OVERLOAD),
    "error: fault": _failing("fault", OutcomeClass.OVERLOAD),
    "error: context": _failing("context", OutcomeClass.CONTEXT_FULL),
    "error: billing": _failing("billing", OutcomeClass.LIMIT),
    "error: cut": _failing("cut", OutcomeClass.ERROR, OutcomeClass.OVERLOAD),
    "error: json": _failing("json", OutcomeClass.ERROR, OutcomeClass.OVERLOAD),
}


def applicable(can: Capabilities) -> list[str]:
    """Return the cases that a provider which declares these capabilities has to keep."""
    beyond = {
        "resume": can.resumes_sessions,
        "defer": can.resumes_sessions,
        "fork": can.forks_sessions,
        "interrupt": can.interrupts,
        "steer": can.steers,
        "subagent": can.delegates,
        "error: context": can.tells_context_full,
        "error: window": can.tells_reset,
    }
    return [name for name in CASES if beyond.get(name, True)]
