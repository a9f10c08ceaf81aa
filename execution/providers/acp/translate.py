"""From an agent's updates to events of ours: one `Translator` per turn, no input or output of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from acp.schema import AgentMessageChunk, PromptResponse, ToolCallUpdate
from pydantic import ValidationError

from execution import outcomes
from execution.outcomes import Evidence, Vendor
from execution.ports import Finished, Notice, ProviderEvent, TextDelta, ToolFinished, ToolStarted, Usage, UsageReported
from execution.providers.acp.calls import Known
from execution.providers.network import with_network
from execution.providers.telling import OUTGROWN
from execution.shim.pipes import Unintelligible
from execution.states import OutcomeClass

_BETWEEN_TEXTS = "\n\n"
AUTH_REQUIRED = -32000  # the protocol's own code
# The answer is whole as far as it goes, for the model may not write more at once: as a reason, and as some agents call it an error.
OUTGREW, _OUTGREW_AS_ERROR = "max_tokens", "max_output_tokens"
# The protocol's words for what the table knows by another.
_WORDS = {
    "quota_exhausted": "insufficient_quota",
    "rate_limited": "rate_limit",
}
UNASKED = "It ran something without asking, so it was ended."


class Translator:
    """Turns the updates of one turn into events and remembers what the last one needs."""

    def __init__(self, agent: str, *, session_id: str, model: str, turn: str) -> None:
        self.said = ""
        self._vendor = Vendor(
            name=agent, account=f"The account of {agent}", key="An administrator renews it and restarts."
        )
        self._session_id, self._model, self._turn = session_id, model, turn
        self._calls: dict[str, Known] = {}
        self._message: str | None = None
        self._pause = False  # something came between the last text and the next

    def take(self, update: dict[str, Any]) -> Iterator[ProviderEvent]:
        """Yield what this update tells; nothing for most kinds. Raises Unintelligible."""
        try:
            match update.get("sessionUpdate"):
                case "agent_message_chunk":
                    yield from self._text(AgentMessageChunk.model_validate(update))
                case "tool_call" | "tool_call_update":
                    yield from self._tool(ToolCallUpdate.model_validate(update), update)
        except ValidationError as error:
            raise Unintelligible(f"Its “{update.get('sessionUpdate')}” is not the one we know.") from error

    def ask(self, told: ToolCallUpdate, raw: dict[str, Any]) -> tuple[Known, list[ProviderEvent]]:
        """Return the call a request for permission is about, and the events that belong before it."""
        known = self._learn(told, raw)
        known.asked = True
        return known, list(self._begin(known))

    # --- The answer and the tools as they come ---------------------------------------------------------------------------

    def _text(self, chunk: AgentMessageChunk) -> Iterator[ProviderEvent]:
        text = chunk.content.text if chunk.content.type == "text" else ""
        if not text:
            return
        other = self._pause or chunk.message_id != self._message
        piece = _BETWEEN_TEXTS + text if self.said and other else text
        self._message, self._pause = chunk.message_id, False
        self.said += piece
        yield TextDelta(piece)

    def _tool(self, told: ToolCallUpdate, raw: dict[str, Any]) -> Iterator[ProviderEvent]:
        known = self._learn(told, raw)
        if told.status not in ("completed", "failed"):
            return
        if not known.asked or (known.refusal and told.status == "completed"):
            raise Unintelligible(UNASKED)
        yield from self._begin(known)
        yield ToolFinished(known.id, told.status == "completed" and not known.refusal, known.summary)

    def _learn(self, told: ToolCallUpdate, raw: dict[str, Any]) -> Known:
        self._pause = True
        known = self._calls.setdefault(told.tool_call_id, Known(told.tool_call_id))
        known.learn(told, raw)
        return known

    def _begin(self, known: Known) -> Iterator[ProviderEvent]:
        if not known.begun:
            known.begun = True
            calls = known.calls
            tool = calls[0].tool if calls else known.title or "?"
            digest = calls[0].digest if calls else ""
            yield ToolStarted(known.id, tool, ", ".join(call.target for call in calls), digest)

    # --- The end ---------------------------------------------------------------------------------------------------------

    def end(self, answer: PromptResponse) -> Iterator[ProviderEvent]:
        """Yield what the answer to the prompt says: what was used, where the agent tells it, and the end."""
        used = answer.usage
        if used is not None and used.total_tokens:
            cached, written = used.cached_read_tokens or 0, used.cached_write_tokens or 0
            apart = used.total_tokens >= used.input_tokens + used.output_tokens + cached + written
            yield UsageReported(
                Usage(
                    message_id=self._turn,
                    model=self._model,
                    input_uncached=used.input_tokens if apart else max(0, used.input_tokens - cached - written),
                    cache_read=cached,
                    cache_write_5m=written,
                    output=used.output_tokens,
                    reasoning=min(used.thought_tokens or 0, used.output_tokens),
                ),
                complete=True,
            )
        if answer.stop_reason == OUTGREW:
            yield from self.outgrown()
        else:
            yield self._end(answer.stop_reason)

    def outgrown(self) -> Iterator[ProviderEvent]:
        """Yield the end of an answer that is as long as the model may write."""
        yield Notice(OUTGROWN, lasting=True)
        yield self._end("end_turn")

    def _end(self, reason: str) -> Finished:
        if reason == "end_turn":
            return Finished(OutcomeClass.OK, text=self.said, session_id=self._session_id)
        return self.failed(Evidence((_WORDS.get(reason, reason),)), details={"reason": reason})

    def failed(self, evidence: Evidence, *, details: dict[str, Any]) -> Finished:
        """Return the end that the table of outcomes finds for this evidence."""
        ruling = outcomes.judge(with_network(evidence, self._session_id), self._vendor)
        return Finished.ruled(ruling, text=self.said, session_id=self._session_id, details=details)


def outgrew(data: Any) -> bool:
    """Return whether an error says only that the model may not write more at once."""
    return isinstance(data, dict) and data.get("errorKind") == _OUTGREW_AS_ERROR


def evidence_of(code: int, data: Any) -> Evidence:
    """Return what an error says in fields: its code, and the `errorKind` that some agents put into its data."""
    kind = data.get("errorKind") if isinstance(data, dict) else None
    word = "unauthorized" if code == AUTH_REQUIRED else str(kind or "")
    return Evidence((_WORDS.get(word, word),) if word else ())
