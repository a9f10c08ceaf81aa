"""What Codex asks before it acts, answered by our judge; and the proof that it asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from execution.ports import Judge, ProviderEvent, ToolCall, ToolFinished, Verdict
from execution.providers.codex.calls import calls_of, command_call
from execution.providers.codex.rpc import Incoming, Peer
from execution.providers.codex.translate import Translator
from execution.shim.pipes import Unintelligible

log = structlog.get_logger(__name__)
COMMAND, FILE_CHANGE = "item/commandExecution/requestApproval", "item/fileChange/requestApproval"
_REASON = "reason"  # Codex reads over it; it is for a worker that goes on with the turn
_UNKNOWN = Verdict(False, "Fleet could not see what was asked for, so it is not allowed.")


class Approvals:
    """Answers the app-server's requests of one turn. `explain` tells the model something, as a message in the turn."""

    def __init__(
        self, peer: Peer, translator: Translator, judge: Judge, *, explain: Callable[[str], Awaitable[Any]]
    ) -> None:
        self._peer, self._translator, self._judge, self._explain = peer, translator, judge, explain
        self._asked: set[str] = set()
        self._answering: set[asyncio.Task[None]] = set()  # a loop keeps no task alive by itself

    def ask(self, request: Incoming) -> None:
        """Let the judge answer, without keeping the stream waiting; what another worker has answered is only remembered."""
        item_id = str(request.params.get("itemId", ""))
        self._asked.add(item_id)
        if request.answer is not None:
            if reason := request.answer.get(_REASON):
                self._translator.refusals[item_id] = reason
            return
        task = asyncio.create_task(self._answer(request))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def check(self, event: ProviderEvent) -> None:
        """Raise Unintelligible when a tool is over that nobody asked us about: then this is not the CLI we know."""
        if isinstance(event, ToolFinished) and event.call_id not in self._asked:
            raise Unintelligible("It ran something without asking, so it was ended.")

    async def _answer(self, request: Incoming) -> None:
        try:
            if request.method in (COMMAND, FILE_CHANGE):
                await self._decide(request)
            else:
                await self._peer.refuse(request)
        except BrokenPipeError as error:  # the turn was ended meanwhile
            log.debug("codex.not_answered", error=str(error))

    async def _decide(self, request: Incoming) -> None:
        item_id = str(request.params.get("itemId", ""))
        verdict = await asyncio.to_thread(self._verdict, self._calls(request, item_id))
        if not verdict.allow:
            self._translator.refusals[item_id] = verdict.reason
            # Codex tells the model only "rejected by user". Said before the answer, so that it is read together with it.
            await self._explain(f"[Fleet] This was not allowed: {verdict.reason}")
        decision = {"decision": "accept"} if verdict.allow else {"decision": "decline", _REASON: verdict.reason}
        await self._peer.answer(request, decision)

    def _calls(self, request: Incoming, item_id: str) -> tuple[ToolCall, ...]:
        """Return what is asked for; nothing when that cannot be told."""
        params = request.params
        if request.method == FILE_CHANGE:
            return calls_of(self._translator.items.get(item_id))
        if params.get("networkApprovalContext") or not params.get("command"):
            return ()
        return (command_call(item_id, str(params["command"])),)

    def _verdict(self, calls: tuple[ToolCall, ...]) -> Verdict:
        verdicts = (self._judge(call) for call in calls)
        refused = next((verdict for verdict in verdicts if not verdict.allow), None)
        return refused or (Verdict(True) if calls else _UNKNOWN)
