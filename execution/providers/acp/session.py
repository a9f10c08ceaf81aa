"""One turn of an ACP agent: it waits behind the shim with its session open, and gets its prompt when the gate opens."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import structlog
from acp.connection import Connection
from acp.exceptions import RequestError
from acp.meta import AGENT_METHODS
from acp.schema import PromptResponse
from pydantic import ValidationError

from execution.ports import Finished, Notice, NotPrepared, ProcessFacts, Prompt, ProviderEvent, Started, UserText
from execution.providers.acp import launch
from execution.providers.acp.agents import Agent
from execution.providers.acp.handshake import Lost, Opened, Unsafe, shake_hands, wait_connected
from execution.providers.acp.permissions import Permissions
from execution.providers.acp.sessions import Sessions
from execution.providers.acp.translate import Translator, evidence_of, outgrew
from execution.providers.acp.transport import ANSWERED, PipesTransport
from execution.providers.run import CliRun, Given
from execution.providers.telling import LOST_SESSION
from execution.shim.handle import Nursery
from execution.shim.pipes import Pipes, Unintelligible

log = structlog.get_logger(__name__)
UPDATE = "session/update"


class AcpRun(CliRun):
    """One turn with the agent."""

    def __init__(self, agent: Agent, prompt: Prompt, *, nursery: Nursery) -> None:
        super().__init__(prompt, nursery=nursery)
        self.name = agent.name
        self._agent = agent
        self._sessions = Sessions(prompt.home, agent.name)
        self._known = ""
        self._opened = Opened("", "", fresh=True)
        self._plan: launch.Launch  # while it is being prepared
        self._translator: Translator | None = None
        self._permissions: Permissions | None = None
        self._connection: Connection
        self._transport = PipesTransport(self._pipes)
        self._fault: asyncio.Future[None]

    def prepare(self) -> ProcessFacts:
        """Start the agent and wait until its session is open."""
        self._known = self._sessions.find(self._prompt.session_id)
        self._plan = launch.prepare(self._agent, self._prompt)
        self._spawn(self._plan)
        self._wait_ready()
        return self._facts

    def again(self) -> None:
        """Each turn has a process of its own."""

    # --- On the loop -----------------------------------------------------------------------------------------------------

    async def _meet(self) -> None:
        """Open the agent's session, unless another worker did; which one it is will be remembered when the turn begins."""
        self._fault = asyncio.get_running_loop().create_future()
        self._connection = Connection(self._hear, self._transport)
        prompt = self._prompt
        if not self._adopted:
            await self._open_session(self._known)
            await wait_connected(self._plan.sockets)
        if self._opened.fresh and prompt.resume:
            self._events.put(Notice(LOST_SESSION, lasting=True))
        self._events.put(Started(prompt.session_id, self._opened.version, prompt.model))

    async def _open_session(self, known: str) -> None:
        agent, prompt = self._agent, self._prompt
        try:
            servers = self._plan.servers
            self._opened = await shake_hands(self._connection, agent, prompt, known=known, servers=servers)
        except Lost as error:
            log.info("acp.not_resumed", agent=agent.name, session=prompt.session_id, error=str(error))
            await self._start_anew()
            await self._open_session("")

    async def _start_anew(self) -> None:
        """Put another process in the agent's place: what it read from a pipe or connected with to resume can be had only once."""
        await self._connection.close()
        await self._pipes.close()
        await asyncio.to_thread(self._end_cli)
        self._pipes = Pipes()
        self._plan = await asyncio.to_thread(launch.prepare, self._agent, self._prompt)
        await asyncio.to_thread(self._start_cli, self._plan)
        await self._pipes.connect()
        self._transport = PipesTransport(self._pipes)
        self._connection = Connection(self._hear, self._transport)

    async def _turn(self, given: Given) -> None:
        self._sessions.keep(self._prompt.session_id, self._opened.id)
        translator = self._translating(f"{self._opened.id}:{given.texts[-1].uuid}")
        self._translator = translator
        self._permissions = Permissions(translator, given.judge, tell=self._events.put)
        if self._transport.was_cancelled:
            self._permissions.cancelled.set()
        await self._open_gate(given)
        message = {"sessionId": self._opened.id, "prompt": self._blocks(given.texts)}
        asked = asyncio.ensure_future(self._connection.send_request(AGENT_METHODS["session_prompt"], message))
        await asyncio.wait({asked, self._fault}, return_when=asyncio.FIRST_COMPLETED)
        if self._fault.done():
            asked.cancel()
            self._fault.result()
        for event in await self._end_of(asked, translator):
            self._over = isinstance(event, Finished)
            self._events.put(event)

    async def _end_of(self, asked: asyncio.Future[Any], translator: Translator) -> list[ProviderEvent]:
        try:
            return list(translator.end(PromptResponse.model_validate(await asked)))
        except RequestError as error:
            if not outgrew(error.data):
                raise
            return list(translator.outgrown())

    def _blocks(self, texts: tuple[UserText, ...]) -> list[dict[str, str]]:
        """Return the prompt. Agents take a leading slash for a command of theirs; nobody in a chat gives those."""
        said = [f"Message: {text.text}" if text.text.lstrip().startswith("/") else text.text for text in texts]
        if self._opened.fresh and not self._agent.takes_system_prompt:
            said.insert(0, self._prompt.system_prompt)
        return [{"type": "text", "text": text} for text in said]

    async def _hear(self, method: str, params: Any, is_notification: bool) -> Any:
        """Take what the agent says by itself. A notification is taken before the next one, since nothing here waits."""
        if not is_notification:
            if self._permissions is None:
                raise RequestError.method_not_found(method)
            return await self._permissions.answer(method, params)
        if method == ANSWERED and self._permissions is not None:
            self._permissions.recall(params)
        if method == UPDATE and self._translator is not None:
            self._take(self._translator, params)
        return None

    def _take(self, translator: Translator, params: dict[str, Any]) -> None:
        """Put an update's events into the queue. What a session below ours says is not the answer; what it runs is looked at."""
        update = params["update"]
        if params.get("sessionId") != self._opened.id and update.get("sessionUpdate") == "agent_message_chunk":
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
            await self._connection.send_notification(AGENT_METHODS["session_cancel"], {"sessionId": self._opened.id})
        except Exception as error:
            log.debug("acp.not_interrupted", error=str(error))

    # --- For another worker ----------------------------------------------------------------------------------------------

    def _memo(self) -> dict[str, Any]:
        opened = self._opened
        return {
            "session": opened.id,
            "version": opened.version,
            "fresh": opened.fresh,
            "model": self._prompt.model,
            "requests": self._transport.requests,
        }

    def _inherit(self, memo: dict[str, Any], said: bytes) -> None:
        self._opened = Opened(str(memo["session"]), str(memo["version"]), fresh=bool(memo["fresh"]))
        self._prompt = replace(self._prompt, model=str(memo["model"]))  # by which it is priced
        self._transport = PipesTransport(self._pipes, said=said, requests=int(memo["requests"]))

    # --- Explaining ------------------------------------------------------------------------------------------------------

    async def _explained(self, error: Exception) -> Finished:
        """Turn a refused prompt, or the end of an agent that broke, into a sentence; of the latter nothing is left by then."""
        if isinstance(error, NotPrepared):
            return error.finished
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
