"""One Claude turn: it waits with its process at the gate, gets its prompt when the gate opens, and tells until its result."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator, Mapping
from typing import Any

from claude_agent_sdk import Message

from execution.ports import (
    Claim,
    Finished,
    NotAdopted,
    Notice,
    NotPrepared,
    ProcessFacts,
    Prompt,
    ProviderEvent,
    Usage,
    UserText,
)
from execution.providers.claude import launch, mirror
from execution.providers.claude.process import ClaudeProcess
from execution.providers.claude.subagents import Subagents
from execution.providers.claude.translate import Translator
from execution.providers.claude.unreported import Unreported
from execution.providers.telling import LOST_SESSION, told
from execution.shim import taking
from execution.shim.handle import Nursery
from execution.states import OutcomeClass
from execution.toolcalls import Judge, ToolCall, Verdict


class ClaudeRun:
    """One turn with a CLI. `prepare`, `release` and `events` belong to the worker's thread; `interrupt` and `kill` to any."""

    def __init__(self, prompt: Prompt, process: ClaudeProcess, *, first: bool = True) -> None:
        self._prompt, self._process, self._first = prompt, process, first
        self._judge: Judge
        self._texts: tuple[UserText, ...] = ()
        self._adopted = False
        self.claim: Claim | None = None
        self._events: queue.SimpleQueue[ProviderEvent | None] = queue.SimpleQueue()
        self._translator = Translator(process.counting, session_id=prompt.session_id)
        self._unreported: Unreported | None = None
        self._end: Finished | None = None

    @classmethod
    def open(cls, prompt: Prompt, *, nursery: Nursery) -> ClaudeRun:
        """Return a run with a process of its own; starts nothing."""
        return cls(prompt, ClaudeProcess(prompt, nursery=nursery))

    @classmethod
    def adopt(
        cls,
        prompt: Prompt,
        process: ProcessFacts,
        texts: tuple[UserText, ...],
        *,
        judge: Judge,
        claim: Claim,
        nursery: Nursery,
    ) -> ClaudeRun:
        """Go on with the turn that another worker left. Raises NotAdopted."""
        try:
            inherited = taking.take(process, run=str(claim.execution), epoch=claim.epoch)
            run = cls(prompt, ClaudeProcess.taken(prompt, inherited, nursery=nursery))
            run._texts, run._judge, run.claim, run._adopted = texts, judge, claim, True
            run._remember(json.loads(inherited.memo))
            run._process.go_on(run, inherited)
        except (taking.NotTaken, ValueError, KeyError, TypeError) as error:  # also a memo of another release
            raise NotAdopted(str(error)) from error
        except NotPrepared as error:
            raise NotAdopted(error.finished.sentence) from error
        return run

    def prepare(self) -> ProcessFacts:
        """Start the CLI and wait until it is ready for a prompt."""
        facts = self._process.start()
        self._mention_lost_session()
        return facts

    def _mention_lost_session(self) -> None:
        if self._first and self._prompt.resume and not self._process.resumed:
            self._events.put(Notice(LOST_SESSION, lasting=True))

    def release(self, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim | None = None) -> None:
        """Hand over the prompt."""
        self._texts, self._judge, self.claim = texts, judge, claim
        self._look_at_the_process()
        self._collect(ends=None)
        self._process.give(self)

    def _look_at_the_process(self) -> None:
        self._translator.totals_are_whole, self._translator.is_first = not self._process.resumed, self._first

    def _collect(self, *, ends: Mapping[str, int] | None) -> None:
        """Begin to count what no event tells. `ends` is how far the subagents of earlier turns had written; as far as now, by default."""
        configuration = launch.configuration_directory(self._prompt.home)
        session = mirror.place_of(self._prompt.session_id, self._prompt.workspace)
        self._unreported = Unreported(self._process.counting, Subagents(configuration, session, ends=ends))

    def memo(self) -> bytes:
        """Return what another worker has to know of the process and of its earlier turns."""
        process = self._process
        known = {
            "first": self._first,
            "resumed": process.resumed,
            "counted": process.counting.kept(),
            "subagents": self._unreported.began if self._unreported else {},
        }
        return json.dumps(known).encode()

    def _remember(self, known: dict[str, Any]) -> None:
        self._first, self._process.resumed = known["first"], known["resumed"]
        self._process.counting.restore(known["counted"])
        self._collect(ends=known.get("subagents"))
        self._look_at_the_process()
        self._mention_lost_session()

    def settle(self) -> None:
        """Its end is written."""
        if self.claim is not None:
            self._process.settle_run(str(self.claim.execution))

    def leave(self) -> None:
        """Go away; the turn goes on without us."""
        self._process.leave()

    def events(self, *, timeout: float) -> Iterator[ProviderEvent | None]:
        """Return what the CLI tells; the last one is Finished, unless the run was killed."""
        return told(self._events, timeout=timeout)

    def unreported(self) -> tuple[Usage, ...]:
        """Return what was used beside what the events told; while it runs, its subagents' messages."""
        if self._unreported is None:
            return ()
        over = self._is_answered() or not self._process.is_there()  # one that was stopped may write on until it is gone
        return self._unreported.known(self._translator, over=over)

    def _is_answered(self) -> bool:
        return self._end is not None and self._end.outcome == OutcomeClass.OK

    def interrupt(self) -> None:
        """Ask the CLI to end its turn; its result follows."""
        self._process.interrupt()

    def kill(self) -> bool:
        """Kill the CLI and everything below it; return whether that is proven."""
        return self._process.kill()

    def close(self) -> None:
        """Wait for the CLI to leave by itself after its result, kill it otherwise, and let go of everything."""
        self._process.let_go(politely=self._end is not None)

    def is_there(self) -> bool:
        """Return whether the CLI could still take a prompt."""
        return self._process.is_there()

    def struck(self) -> str:
        """Return which process was ended by a signal that nobody here sent."""
        return self._process.struck()

    def again(self) -> ClaudeRun | None:
        """Return the next turn of the session in the same CLI; None when there is doubt what it would do next, or was started with."""
        if self._adopted or not self._is_answered() or not self._process.is_there():
            return None
        return ClaudeRun(self._prompt.next(), self._process, first=False)

    # --- What the process asks (execution.providers.claude.process.Turn) -----------------------------------------------------

    @property
    def said(self) -> str:
        """Return everything the model has said so far."""
        return self._translator.said

    def judge(self, call: ToolCall) -> Verdict:
        """Decide a tool call."""
        return self._judge(call)

    def message(self) -> dict[str, Any]:
        """Return the messages of the turn as one: sent apart, the CLI could answer the first and leave the second for another turn.

        Its uuid is the last one's, which no earlier turn can have used.
        """
        return {
            "type": "user",
            "uuid": self._texts[-1].uuid,
            "message": {"role": "user", "content": [{"type": "text", "text": text.text} for text in self._texts]},
            "parent_tool_use_id": None,
        }

    def take(self, message: Message) -> bool:
        """Hear a message of the CLI; True when it was the last."""
        self._translator.error_type = self._process.error_type
        for event in self._translator.take(message):
            if isinstance(event, Finished):
                self._end = event
            self._events.put(event)
        return self._end is not None

    def broke(self, finished: Finished) -> None:
        """The CLI ended in the middle of the turn."""
        self._events.put(finished)

    def silent(self) -> None:
        """Nothing more is coming."""
        self._events.put(None)
