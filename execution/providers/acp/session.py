"""One turn of an ACP agent: it waits behind the shim with its session open, and gets its prompt when the gate opens.

The protocol lives on an event loop of its own thread; the worker's thread talks to it through futures and a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import structlog
from acp.connection import Connection
from acp.exceptions import RequestError
from acp.meta import AGENT_METHODS
from acp.schema import PromptResponse
from pydantic import ValidationError

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
from execution.providers.acp import launch
from execution.providers.acp.agents import Agent
from execution.providers.acp.handshake import Unsafe, shake_hands
from execution.providers.acp.permissions import Permissions
from execution.providers.acp.sessions import Sessions
from execution.providers.acp.translate import Translator, evidence_of
from execution.providers.acp.transport import PipesTransport
from execution.providers.cli import LOOP, Broken, CliProcess
from execution.providers.telling import LOST_SESSION, told
from execution.shim.handle import Nursery
from execution.shim.pipes import Pipes, Unintelligible
from fleet.kernel import loops

log = structlog.get_logger(__name__)
UPDATE = "session/update"


class AcpRun(CliProcess):
    """One turn with the agent. `prepare`, `release` and `events` belong to the worker's thread; the rest to any."""

    def __init__(self, agent: Agent, prompt: Prompt, *, nursery: Nursery) -> None:
        self._pipes = Pipes()
        super().__init__(self._pipes, nursery=nursery, session_id=prompt.session_id)
        self.name = agent.name
        self._agent, self._prompt = agent, prompt
        self._sessions = Sessions(prompt.home, agent.name)
        self._given: Future[tuple[tuple[UserText, ...], Judge]] = Future()
        self._events: queue.SimpleQueue[ProviderEvent | None] = queue.SimpleQueue()
        self._over = False
        self._session = ""
        self._fresh = True
        self._translator: Translator | None = None
        self._permissions: Permissions | None = None
        self._connection: Connection
        self._transport: PipesTransport
        self._fault: asyncio.Future[None]

    # --- Before the gate -------------------------------------------------------------------------------------------------

    def prepare(self) -> ProcessFacts:
        """Start the agent and wait until its session is open."""
        facts = self._spawn(launch.prepare(self._agent, self._prompt))
        self._wait_ready()
        return facts

    # --- The turn --------------------------------------------------------------------------------------------------------

    def release(self, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim | None = None) -> None:
        """Hand over the prompt."""
        self._given.set_result((texts, judge))

    def events(self, *, timeout: float) -> Iterator[ProviderEvent | None]:
        """Return what the agent tells; the last one is Finished, unless the run was killed."""
        return told(self._events, timeout=timeout)

    def interrupt(self) -> None:
        """Ask the agent to end its turn; its answer to the prompt follows."""
        if self._given.done():
            loops.submit(self._interrupt(), loop=LOOP)

    # --- The end ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for the agent to leave by itself after its answer, kill it otherwise, and let go of everything."""
        self.let_go(politely=self._over)

    def settle(self) -> None:
        """Nobody adopts it."""

    def again(self) -> None:
        """Each turn has a process of its own."""

    # --- On the loop -----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Open the session, wait for the gate, hand over the prompt, and report until the turn is over."""
        try:
            self._fault = asyncio.get_running_loop().create_future()
            await self._pipes.connect()
            self._transport = PipesTransport(self._pipes)
            self._connection = Connection(self._hear, self._transport)
            await self._open()
            self._ready.set_result(None)
            texts, judge = await asyncio.wrap_future(self._given)
            await self._turn(texts, judge)
        except Exception as error:
            self._end(await self._explained(error))
        finally:
            self._events.put(None)
            with contextlib.suppress(BrokenPipeError):
                await self._pipes.end_input()

    async def _open(self) -> None:
        """Open the agent's session; which one it is will be remembered when the turn begins."""
        prompt = self._prompt
        known = self._sessions.find(prompt.session_id)
        opened = await shake_hands(self._connection, self._agent, prompt, known=known)
        self._session, self._fresh = opened.id, opened.fresh
        if opened.fresh and prompt.resume:
            self._events.put(Notice(LOST_SESSION))
        self._events.put(Started(prompt.session_id, opened.version, prompt.model))

    async def _turn(self, texts: tuple[UserText, ...], judge: Judge) -> None:
        self._sessions.keep(self._prompt.session_id, self._session)
        translator = self._translating(f"{self._session}:{texts[-1].uuid}")
        self._translator = translator
        self._permissions = Permissions(translator, judge, tell=self._events.put)
        message = {"sessionId": self._session, "prompt": self._blocks(texts)}
        asked = asyncio.ensure_future(self._connection.send_request(AGENT_METHODS["session_prompt"], message))
        await asyncio.wait({asked, self._fault}, return_when=asyncio.FIRST_COMPLETED)
        if self._fault.done():
            asked.cancel()
            self._fault.result()
        for event in translator.end(PromptResponse.model_validate(await asked)):
            self._over = isinstance(event, Finished)
            self._events.put(event)

    def _blocks(self, texts: tuple[UserText, ...]) -> list[dict[str, str]]:
        """Return the prompt. Agents take a leading slash for a command of theirs; nobody in a chat gives those."""
        said = [f"Message: {text.text}" if text.text.lstrip().startswith("/") else text.text for text in texts]
        if self._fresh and not self._agent.takes_system_prompt:
            said.insert(0, self._prompt.system_prompt)
        return [{"type": "text", "text": text} for text in said]

    async def _hear(self, method: str, params: Any, is_notification: bool) -> Any:
        """Take what the agent says by itself. A notification is taken before the next one, since nothing here waits."""
        if not is_notification:
            if self._permissions is None:
                raise RequestError.method_not_found(method)
            return await self._permissions.answer(method, params)
        if method == UPDATE and self._translator is not None:
            self._take(self._translator, params)
        return None

    def _take(self, translator: Translator, params: dict[str, Any]) -> None:
        """Put an update's events into the queue. What a session below ours says is not the answer; what it runs is looked at."""
        update = params["update"]
        if params.get("sessionId") != self._session and update.get("sessionUpdate") == "agent_message_chunk":
            return
        try:
            for event in translator.take(update):
                self._events.put(event)
        except Unintelligible as error:
            if not self._fault.done():
                self._fault.set_exception(error)

    async def _interrupt(self) -> None:
        try:
            if self._permissions is not None:
                self._permissions.cancelled.set()
            await self._connection.send_notification(AGENT_METHODS["session_cancel"], {"sessionId": self._session})
        except Exception as error:
            log.debug("acp.not_interrupted", error=str(error))

    def _end(self, finished: Finished) -> None:
        if self._ready.done():
            self._events.put(finished)
        else:
            self._ready.set_exception(Broken(finished))

    # --- Explaining ------------------------------------------------------------------------------------------------------

    async def _explained(self, error: Exception) -> Finished:
        """Turn a refused prompt, or the end of an agent that broke, into a sentence; of the latter nothing is left by then."""
        if isinstance(error, RequestError) and not self._killed:
            return self._refused(error)
        return await self._explain(self._what(error), str(error))

    def _what(self, error: Exception) -> str:
        if isinstance(error, ConnectionError):
            error = self._transport.end
        if isinstance(error, Unintelligible | Unsafe):
            return str(error)
        if isinstance(error, ValidationError):
            return "It answered what is not the protocol we know."
        return self._when()

    def _refused(self, error: RequestError) -> Finished:
        log.info(
            "acp.refused", agent=self._agent.name, session=self._prompt.session_id, code=error.code, error=str(error)
        )
        self._over = True
        details = {"code": error.code, "data": error.data, "stderr": self._pipes.stderr}
        translator = self._translator or self._translating("")
        return translator.failed(evidence_of(error.code, error.data), details=details)

    def _translating(self, turn: str) -> Translator:
        prompt = self._prompt
        return Translator(self._agent.name, session_id=prompt.session_id, model=prompt.model, turn=turn)

    def _said(self) -> str:
        return self._translator.said if self._translator else ""
