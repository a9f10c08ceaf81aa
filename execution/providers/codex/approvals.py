"""What Codex asks before it acts, answered by our judge; and the proof that it asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from openai_codex.generated.v2_all import McpToolCallThreadItem

from execution.ports import ProviderEvent, ToolFinished
from execution.providers.codex.calls import calls_of, command_call, is_list, is_resource
from execution.providers.codex.rpc import Incoming, Peer
from execution.providers.codex.translate import Translator
from execution.shim.pipes import Unintelligible
from execution.toolcalls import Judge, ToolCall, Verdict

log = structlog.get_logger(__name__)
COMMAND, FILE_CHANGE = "item/commandExecution/requestApproval", "item/fileChange/requestApproval"
ELICITATION = (
    "mcpServer/elicitation/request"  # by which it asks for a call of an MCP server's tool, or a server asks a person
)
_REASON = "reason"  # Codex reads over it; it is for a worker that goes on with the turn
_UNKNOWN = Verdict(False, "Fleet could not see what was asked for, so it is not allowed.")


@dataclass(frozen=True, slots=True)
class Question:
    """What the app-server asks: about which item, for which calls, and the word its answer goes by; none for what we do not serve."""

    item_id: str
    calls: tuple[ToolCall, ...]
    word: str


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
        question = self._question(request)
        self._asked.add(question.item_id)
        if request.answer is not None:
            if reason := request.answer.get(_REASON):
                self._translator.refusals[question.item_id] = reason
            return
        task = asyncio.create_task(self._answer(request, question))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def check(self, event: ProviderEvent) -> None:
        """Raise Unintelligible when a tool is over that nobody asked us about: then this is not the CLI we know."""
        if not isinstance(event, ToolFinished) or event.call_id in self._asked:
            return
        item = self._translator.items[event.call_id]
        if not is_resource(item):
            raise Unintelligible("It ran something without asking, so it was ended.")
        if event.ok and not is_list(item):
            await self._may_have_read(item)

    async def _may_have_read(self, item: McpToolCallThreadItem) -> None:
        """Judge afterwards what Codex never asks for. Servers that are programs answer no such call (`arrange`)."""
        verdict = await asyncio.to_thread(self._verdict, calls_of(item))
        if not verdict.allow:
            raise Unintelligible(
                f"It read from the MCP server “{item.server}” without asking, so it was ended. {verdict.reason}"
            )

    def _question(self, request: Incoming) -> Question:
        """Return what is asked for; no calls when that cannot be told, and then it is not allowed."""
        params = request.params
        item_id = str(params.get("itemId", ""))
        if request.method == FILE_CHANGE:
            return Question(item_id, calls_of(self._translator.items.get(item_id)), "decision")
        if request.method == COMMAND:
            known = params.get("command") and not params.get("networkApprovalContext")
            return Question(item_id, (command_call(item_id, str(params["command"])),) if known else (), "decision")
        return self._of_server(params) if request.method == ELICITATION else Question("", (), "")

    def _of_server(self, params: Mapping[str, Any]) -> Question:
        """Return the call of an MCP server's tool. It is asked for by server and input: what it fits is judged, all of it."""
        meta = params.get("_meta") or {}
        items = [
            item
            for item in self._translator.items.values()
            if meta.get("codex_approval_kind") == "mcp_tool_call"
            and isinstance(item, McpToolCallThreadItem)
            and item.id not in self._asked
            and (item.server, item.arguments or {}) == (params.get("serverName"), meta.get("tool_params") or {})
        ]
        return Question(
            items[0].id if items else "", tuple(call for item in items for call in calls_of(item)), "action"
        )

    async def _answer(self, request: Incoming, question: Question) -> None:
        try:
            if question.word:
                await self._decide(request, question)
            else:
                await self._peer.refuse(request)
        except BrokenPipeError as error:  # the turn was ended meanwhile
            log.debug("codex.not_answered", error=str(error))

    async def _decide(self, request: Incoming, question: Question) -> None:
        verdict = await asyncio.to_thread(self._verdict, question.calls)
        if not verdict.allow:
            self._translator.refusals[question.item_id] = verdict.reason
            # Codex tells the model only "rejected by user". Said before the answer, so that it is read together with it.
            await self._explain(f"[Fleet] This was not allowed: {verdict.reason}")
        decision = {question.word: "accept"} if verdict.allow else {question.word: "decline", _REASON: verdict.reason}
        await self._peer.answer(request, decision)

    def _verdict(self, calls: tuple[ToolCall, ...]) -> Verdict:
        verdicts = (self._judge(call) for call in calls)
        refused = next((verdict for verdict in verdicts if not verdict.allow), None)
        return refused or (Verdict(True) if calls else _UNKNOWN)
