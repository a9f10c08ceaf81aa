"""The turns of one Codex: the app-server waits behind the shim with its thread open, and gets each prompt when its gate opens.

The protocol lives on an event loop of its own thread; the worker's thread talks to it through futures and a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterator
from concurrent.futures import Future

import structlog
from openai_codex.generated.v2_all import TurnStartParams

from execution.ports import (
    Claim,
    Finished,
    Judge,
    Notice,
    ProcessFacts,
    Prompt,
    ProviderEvent,
    Started,
    UserText,
)
from execution.providers.cli import LOOP, Broken, CliProcess
from execution.providers.codex import launch
from execution.providers.codex.approvals import Approvals
from execution.providers.codex.counting import Counting
from execution.providers.codex.handshake import Unsafe, shake_hands
from execution.providers.codex.rpc import Peer, RequestRefused
from execution.providers.codex.threads import Thread, Threads
from execution.providers.codex.translate import Translator
from execution.providers.steering import Steered
from execution.providers.telling import LOST_SESSION, told
from execution.shim.handle import Nursery
from execution.shim.pipes import Ended, Pipes, Unintelligible
from execution.states import OutcomeClass
from fleet.kernel import loops

log = structlog.get_logger(__name__)
STEER_SECONDS = 5.0


class CodexRun(CliProcess):
    """A turn with the CLI, and after a good answer the next one. `prepare`, `release`, `events` and `again` belong to the worker's
    thread; the rest to any.
    """

    name = "Codex"

    def __init__(self, prompt: Prompt, *, nursery: Nursery) -> None:
        self._pipes = Pipes()
        super().__init__(self._pipes, nursery=nursery, session_id=prompt.session_id)
        self._prompt = prompt
        self._threads = Threads(launch.configuration_directory(prompt.home))
        self._given: Future[tuple[tuple[UserText, ...], Judge]] = Future()
        self._turn: Future[str] = Future()
        self._events: queue.SimpleQueue[ProviderEvent | None] = queue.SimpleQueue()
        self._more: Future[bool] = Future()  # whether there will be another turn
        self._end_of_turn: Finished | None = None
        self._over = False
        self._peer = Peer(self._pipes)
        self._thread = Thread("")
        self._translator: Translator
        self._started: Started

    # --- Before the gate -------------------------------------------------------------------------------------------------

    def prepare(self) -> ProcessFacts:
        """Start the CLI and wait until its thread is open; it calls no API before it gets a prompt."""
        plan = launch.prepare(self._prompt)
        with launch.alone_at_first(self._prompt.home):
            facts = self._spawn(plan)
            self._wait_ready()
        return facts

    # --- The turn --------------------------------------------------------------------------------------------------------

    def release(self, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim | None = None) -> None:
        """Hand over the prompt."""
        self._over = False
        self._given.set_result((texts, judge))

    def events(self, *, timeout: float) -> Iterator[ProviderEvent | None]:
        """Return what the CLI tells; the last one is Finished, unless the run was killed."""
        return told(self._events, timeout=timeout)

    def steer(self, text: UserText) -> Steered:
        """Add a message to the running turn; return whether Codex confirmed that this turn took it."""
        answer = loops.submit(self._steer(text.text, text.uuid), loop=LOOP)
        try:
            return answer.result(STEER_SECONDS)
        except TimeoutError:
            answer.cancel()
            return Steered.UNKNOWN

    def interrupt(self) -> None:
        """Ask the CLI to end its turn; its result follows."""
        if self._given.done():
            loops.submit(self._interrupt(), loop=LOOP)

    # --- The end ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for the CLI to leave by itself after its result, kill it otherwise, and let go of everything."""
        with self._lock:
            if not self._more.done():
                self._more.set_result(False)
        self._given.cancel()
        self.let_go(politely=self._over)

    def settle(self) -> None:
        """Nobody adopts it."""

    def again(self) -> CodexRun | None:
        """Return this run, ready for the session's next turn on the same thread; None after an end that leaves doubt."""
        good = self._end_of_turn is not None and self._end_of_turn.outcome == OutcomeClass.OK
        if not good or not self.is_there() or self._more.done():
            return None
        self._prompt, self._end_of_turn = self._prompt.next(), None
        self._given, self._turn, self._events = Future(), Future(), queue.SimpleQueue()
        self._translator = self._translate(Counting(self._translator.counting.used))
        self._events.put(self._started)
        with self._lock:
            more, self._more = self._more, Future()
            if not more.done():
                more.set_result(True)
        return self

    # --- On the loop -----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Open the thread, wait for the gate, hand over the prompt, and report until the turn is over."""
        try:
            await self._pipes.connect()
            self._peer.start()
            await self._open()
            self._ready.set_result(None)
            while await self._turn_over():
                pass
        except Exception as error:
            self._end(await self._explained(error))
        finally:
            self._events.put(None)
            with contextlib.suppress(BrokenPipeError):
                await self._pipes.end_input()
            await self._peer.stop()

    async def _turn_over(self) -> bool:
        """Take one turn to its end; return whether another one comes."""
        more = self._more
        texts, judge = await asyncio.wrap_future(self._given)
        await self._begin(texts)
        finished = await self._report(Approvals(self._peer, self._translator, judge, explain=self._steer))
        if finished != OutcomeClass.OK:
            return False
        another: bool = await asyncio.wrap_future(more)
        return another

    async def _open(self) -> None:
        """Open the session's thread; which one it is will be remembered when the turn begins."""
        session_id = self._prompt.session_id
        known = self._threads.find(session_id)
        if self._prompt.resume and known is None:
            self._events.put(Notice(LOST_SESSION))
        opened = await shake_hands(self._peer, self._prompt, known=known)
        self._thread = opened.thread
        self._started = Started(session_id, opened.version, opened.model)
        self._translator = self._translate(Counting(opened.thread.used))
        self._events.put(self._started)

    def _translate(self, counting: Counting) -> Translator:
        started = self._started
        return Translator(
            counting, session_id=started.session_id, model=started.model, max_steps=self._prompt.max_turns
        )

    async def _begin(self, texts: tuple[UserText, ...]) -> None:
        """Hand over all messages as one: sent apart, the second would be another turn."""
        self._threads.keep(self._prompt.session_id, self._thread)
        turn = TurnStartParams.model_validate(
            {
                "thread_id": self._thread.id,
                "input": [{"type": "text", "text": text.text} for text in texts],
                "client_user_message_id": texts[-1].uuid,
                "approval_policy": launch.ASKS,
                "effort": self._prompt.effort or None,
            }
        )
        started = await self._peer.request("turn/start", turn)
        self._turn.set_result(str(started["turn"]["id"]))

    async def _report(self, approvals: Approvals) -> OutcomeClass:
        async for incoming in self._peer.incoming():
            if incoming.id is not None:
                approvals.ask(incoming)
                continue
            used = dict(self._translator.counting.used)
            for event in self._translator.take(incoming):
                approvals.check(event)
                if isinstance(event, Finished):
                    self._end_of_turn, self._over = event, True
                self._events.put(event)
                if isinstance(event, Finished):
                    return event.outcome
            if self._translator.counting.used != used:
                await self._used_more()
        raise Ended

    async def _used_more(self) -> None:
        self._thread = Thread(self._thread.id, self._translator.counting.used)
        self._threads.keep(self._prompt.session_id, self._thread)
        if self._translator.too_many_steps:
            await self._interrupt()

    async def _interrupt(self) -> None:
        try:
            turn_id = await asyncio.wrap_future(self._turn)
            await self._peer.request("turn/interrupt", {"threadId": self._thread.id, "turnId": turn_id})
        except Exception as error:
            log.debug("codex.not_interrupted", error=str(error))

    async def _steer(self, text: str, uuid: str = "") -> Steered:
        try:
            turn_id = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._turn)), STEER_SECONDS / 2)
        except TimeoutError:
            return Steered.REFUSED  # there is no turn to take it, and Codex was not asked
        try:
            message = {
                "threadId": self._thread.id,
                "expectedTurnId": turn_id,
                "input": [{"type": "text", "text": text}],
            }
            named = {"clientUserMessageId": uuid} if uuid else {}
            answer = await self._peer.request("turn/steer", {**message, **named})
            return Steered.TAKEN if answer.get("turnId") == turn_id else Steered.UNKNOWN
        except RequestRefused as error:
            log.debug("codex.not_steered", error=str(error))
            return Steered.REFUSED
        except Exception as error:
            log.debug("codex.steered_into_the_dark", error=str(error))
            return Steered.UNKNOWN

    def _end(self, finished: Finished) -> None:
        if self._ready.done():
            self._events.put(finished)
        else:
            self._ready.set_exception(Broken(finished))

    # --- Explaining ------------------------------------------------------------------------------------------------------

    async def _explained(self, error: Exception) -> Finished:
        """Turn the end of a CLI that broke into a sentence; by then nothing of it is left."""
        what = str(error) if isinstance(error, Unintelligible | Unsafe) else self._when()
        if isinstance(error, RequestRefused):
            what = "It refused what we asked of it."
        elif not isinstance(error, Ended | BrokenPipeError | Unintelligible | Unsafe):
            log.exception("codex.failed", session=self._prompt.session_id)
        return await self._explain(what, str(error))

    def _said(self) -> str:
        return self._translator.said if self._turn.done() else ""
