"""The turns of one Codex: the app-server waits behind the shim with its thread open, and gets each prompt when its gate opens."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import structlog
from openai_codex.generated.v2_all import TurnStartParams

from execution.ports import Finished, Notice, ProcessFacts, Prompt, Started, UserText
from execution.providers.cli import LOOP
from execution.providers.codex import launch
from execution.providers.codex.approvals import Approvals
from execution.providers.codex.counting import Counting
from execution.providers.codex.handshake import Unsafe, shake_hands
from execution.providers.codex.rpc import Incoming, Peer, RequestRefused
from execution.providers.codex.threads import Thread, Threads
from execution.providers.codex.translate import Translator
from execution.providers.run import CliRun, Given
from execution.providers.steering import Steered
from execution.providers.telling import LOST_SESSION
from execution.shim.handle import Nursery
from execution.shim.pipes import Ended, Unintelligible
from execution.states import OutcomeClass
from fleet.kernel import loops

log = structlog.get_logger(__name__)
STEER_SECONDS = 5.0


class CodexRun(CliRun):
    """A turn with the CLI, and after a good answer the next one."""

    name = "Codex"

    def __init__(self, prompt: Prompt, *, nursery: Nursery) -> None:
        super().__init__(prompt, nursery=nursery)
        self._threads = Threads(launch.configuration_directory(prompt.home))
        self._turn_id: Future[str] = Future()
        self._end_of_turn: Finished | None = None
        self._peer = Peer(self._pipes)
        self._thread = Thread("")
        self._servers: Mapping[str, Any] = {}
        self._lost = False  # what was said in the session before
        self._translator: Translator
        self._started: Started

    # --- Before the gate -------------------------------------------------------------------------------------------------

    def prepare(self) -> ProcessFacts:
        """Start the CLI and wait until its thread is open; it calls no API before it gets a prompt."""
        plan = launch.prepare(self._prompt)
        self._servers = plan.servers
        facts = self._spawn(plan)
        self._wait_ready()
        return facts

    # --- The turn --------------------------------------------------------------------------------------------------------

    def steer(self, text: UserText) -> Steered:
        """Add a message to the running turn; return whether Codex confirmed that this turn took it."""
        answer = loops.submit(self._steer(text.text, text.uuid), loop=LOOP)
        try:
            return answer.result(STEER_SECONDS)
        except TimeoutError:
            answer.cancel()
            return Steered.UNKNOWN

    def again(self) -> CodexRun | None:
        """Return this run, ready for the session's next turn on the same thread; None after an end that leaves doubt."""
        good = self._end_of_turn is not None and self._end_of_turn.outcome == OutcomeClass.OK
        if self._adopted or not good or not self.is_there() or self._more.done():
            return None
        self._prompt, self._end_of_turn, self._lost = self._prompt.next(), None, False
        self._given, self._turn_id, self._events = Future(), Future(), queue.SimpleQueue()
        self._begin_to_tell(self._translator.counting.used)
        with self._lock:
            more, self._more = self._more, Future()
            if not more.done():
                more.set_result(True)
        return self

    # --- On the loop -----------------------------------------------------------------------------------------------------

    async def _meet(self) -> None:
        """Open the session's thread, unless another worker did; which one it is will be remembered when the turn begins."""
        self._peer.start()
        if not self._adopted:
            session_id = self._prompt.session_id
            known, parent = (self._threads.find(name) for name in (session_id, self._prompt.forks))
            self._lost = self._prompt.resume and known is None and parent is None
            opened = await shake_hands(self._peer, self._prompt, known=known, parent=parent, servers=self._servers)
            self._thread = opened.thread
            self._started = Started(session_id, opened.version, opened.model)
        self._begin_to_tell(self._thread.used)

    def _begin_to_tell(self, used: Mapping[str, int]) -> None:
        """Make ready for a turn: what is told of it begins with these events, whoever tells it."""
        started = self._started
        self._translator = Translator(
            Counting(used), session_id=started.session_id, model=started.model, max_steps=self._prompt.max_turns
        )
        if self._lost:
            self._events.put(Notice(LOST_SESSION, lasting=True))
        self._events.put(started)

    async def _turn(self, given: Given) -> None:
        await self._begin(given)
        await self._report(Approvals(self._peer, self._translator, given.judge, explain=self._steer))

    async def _begin(self, given: Given) -> None:
        """Hand over all messages as one: sent apart, the second would be another turn."""
        self._threads.keep(self._prompt.session_id, self._thread)
        turn = TurnStartParams.model_validate(
            {
                "thread_id": self._thread.id,
                "input": [{"type": "text", "text": text.text} for text in given.texts],
                "client_user_message_id": given.texts[-1].uuid,
                "approval_policy": launch.ASKS,
                "effort": self._prompt.effort or None,
            }
        )
        await self._open_gate(given)
        started = await self._peer.begin_turn(turn)
        self._turn_id.set_result(str(started["turn"]["id"]))

    async def _report(self, approvals: Approvals) -> None:
        """Tell what comes from the turn's own beginning on: what was still to be heard of earlier things is no part of it."""
        begun = False
        async for incoming in self._peer.incoming():
            begun = begun or self._begins(incoming)
            self._check_is_alone(incoming)
            if incoming.id is not None:
                approvals.ask(incoming)
            elif begun and await self._tell(incoming, approvals):
                return

    def _begins(self, incoming: Incoming) -> bool:
        turn = incoming.params.get("turn") or {}
        return incoming.method == "turn/started" and turn.get("id") == self._turn_id.result()

    def _check_is_alone(self, incoming: Incoming) -> None:
        """Raise Unintelligible when another thread begins to work: what it says and uses would be taken for our turn's."""
        if incoming.method == "turn/started" and incoming.params.get("threadId") != self._thread.id:
            raise Unintelligible("It began to work on something beside the turn, so it was ended.")

    async def _tell(self, incoming: Incoming, approvals: Approvals) -> bool:
        """Tell what follows from it; True when it was the turn's last. By then the next turn may have begun."""
        used, is_last = dict(self._translator.counting.used), False
        for event in self._translator.take(incoming):
            await approvals.check(event)
            if isinstance(event, Finished):
                self._end_of_turn, self._over, is_last = event, True, True
            self._events.put(event)
        if self._translator.counting.used != used:
            await self._used_more()
        return is_last

    async def _used_more(self) -> None:
        self._thread = replace(self._thread, used=self._translator.counting.used)
        self._threads.keep(self._prompt.session_id, self._thread)
        if self._translator.too_many_steps:
            await self._interrupt()

    # --- For another worker ----------------------------------------------------------------------------------------------

    def _memo(self) -> dict[str, Any]:
        return {
            **replace(self._thread, used=self._translator.counting.used).kept(),
            "thread": self._thread.id,
            "version": self._started.version,
            "model": self._started.model,
            "lost": self._lost,
            "requests": self._peer.used,
        }

    def _inherit(self, memo: dict[str, Any], said: bytes) -> None:
        self._thread = Thread.of({**memo, "id": memo["thread"]})
        self._started = Started(self._prompt.session_id, str(memo["version"]), str(memo["model"]))
        self._lost = bool(memo["lost"])
        self._peer = Peer(self._pipes, said=said, used=int(memo["requests"]))

    async def _part(self) -> None:
        await super()._part()
        await self._peer.stop()

    async def _interrupt(self) -> None:
        try:
            turn_id = await asyncio.wrap_future(self._turn_id)
            await self._peer.request("turn/interrupt", {"threadId": self._thread.id, "turnId": turn_id})
        except Exception as error:
            log.debug("codex.not_interrupted", error=str(error))

    async def _steer(self, text: str, uuid: str = "") -> Steered:
        try:
            turn_id = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._turn_id)), STEER_SECONDS / 2)
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
        return self._translator.said if self._turn_id.done() else ""
