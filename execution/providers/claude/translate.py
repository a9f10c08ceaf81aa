"""From the SDK's messages to events of ours: one `Translator` per turn, no input or output of its own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import structlog
from claude_agent_sdk import (
    AssistantMessage,
    Message,
    RateLimitEvent,
    RateLimitInfo,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from execution import outcomes
from execution.cleaning import moment
from execution.outcomes import Evidence, Vendor
from execution.ports import (
    Finished,
    Notice,
    ProviderEvent,
    RateLimited,
    Started,
    TextDelta,
    ToolFinished,
    ToolStarted,
    UsageReported,
)
from execution.providers.claude.counting import Counting
from execution.providers.network import with_network
from execution.providers.telling import OUTGROWN
from execution.retrying import Retrying
from execution.states import OutcomeClass
from execution.toolcalls import ToolCall
from fleet.kernel import clock
from identities.ports import tool_name

log = structlog.get_logger(__name__)
_BETWEEN_TEXTS = "\n\n"
VENDOR = Vendor(
    name="Claude",
    account="The Claude account",
    key="Check ANTHROPIC_API_KEY (or CLAUDE_CODE_OAUTH_TOKEN) in .env and restart.",
)
_LONGEST_REASON = 500
_WITHOUT_STATUS = ("server_error", "unknown")
_BEYOND = ("allowed", "allowed_warning")
_INTERRUPTED = ("aborted_streaming", "aborted_tools")
_LONGEST_DELAY = 366 * 24 * 3_600_000  # milliseconds; what is beyond is no moment


class Translator:
    """Turns the messages of one turn into events and remembers what the last one needs."""

    def __init__(self, counting: Counting | None = None, *, session_id: str = "") -> None:
        self.session_id = session_id
        self.delegates = False  # it has subagents
        self.reports: dict[str, dict[str, Any]] = {}  # what each says it has used, as a line of a transcript
        self.totals: dict[str, Any] = {}  # what the process has used by the CLI's account, by model
        self.totals_are_whole = True  # the CLI's totals tell of this process alone, not of what a transcript began with
        self.is_first = True  # … and of this turn alone
        self.error_type = ""  # what the API called the error that ended the turn
        self._counting = counting or Counting()
        self._texts: list[str] = []  # the text blocks that are complete; only these are the answer
        self._streamed = ""  # of the one that is being written: a cut connection may begin it anew
        self._before = 0  # how many texts were complete when the message that is being written began
        self._in_message = False
        self._message_id = ""
        self._model = ""
        self._error = ""
        self._limited: RateLimited | None = None

    def take(self, message: Message) -> Iterator[ProviderEvent]:
        """Yield what this message tells; nothing for most kinds."""
        self.delegates = self.delegates or bool(getattr(message, "parent_tool_use_id", None))
        match message:
            case StreamEvent(parent_tool_use_id=None):
                yield from self._stream(message.event)
            case AssistantMessage():
                yield from self._assistant(message)
            case UserMessage():
                yield from self._tool_results(message)
            case SystemMessage():
                yield from self._system(message.subtype, message.data)
            case RateLimitEvent():
                yield self._rate_limit(message)
            case ResultMessage():
                self.totals = message.model_usage or {}
                if self._outgrew(message):
                    yield Notice(OUTGROWN, lasting=True)
                yield self._result(message)

    # --- The answer as it is written -----------------------------------------------------------------------------------

    def _stream(self, event: dict[str, Any]) -> Iterator[ProviderEvent]:
        match event.get("type"):
            case "message_start":
                self._begin_message()
                self._message_id = str(event["message"].get("id", ""))
                self._model = str(event["message"].get("model", ""))
                yield from self._usage(self._message_id, self._model, event["message"].get("usage"))
            case "message_stop":
                self._in_message = False
            case "message_delta":
                yield from self._usage(self._message_id, self._model, event.get("usage"), complete=True)
            case "content_block_start":
                self._streamed = ""
            case "content_block_delta" if event["delta"].get("type") == "text_delta":
                yield from self._text(event["delta"]["text"])

    def _begin_message(self) -> None:
        """A message that begins before the last one ended replaces it: its connection was cut, and it is written from the start."""
        if self._in_message:
            del self._texts[self._before :]
        self._before, self._in_message, self._streamed = len(self._texts), True, ""

    @property
    def said(self) -> str:
        """Return everything the model has said so far."""
        return _BETWEEN_TEXTS.join([*self._texts, *([self._streamed] if self._streamed else [])])

    def _text(self, text: str) -> Iterator[ProviderEvent]:
        if text:
            first = not self._streamed and self._texts
            self._streamed += text
            yield TextDelta(_BETWEEN_TEXTS + text if first else text)

    def _assistant(self, message: AssistantMessage) -> Iterator[ProviderEvent]:
        if message.error:
            self._error = str(message.error)
            return
        for block in message.content:
            if isinstance(block, ToolUseBlock):
                call = ToolCall(block.id, tool_name(block.name), block.input)
                yield ToolStarted(call.call_id, call.tool, call.target, call.digest)
            elif isinstance(block, TextBlock) and message.parent_tool_use_id is None:
                yield from self._complete(block.text)
        yield from self._usage(message.message_id or "", message.model, message.usage)

    def _complete(self, text: str) -> Iterator[ProviderEvent]:
        if not self._streamed:
            yield from self._text(text)
        self._texts.append(text)
        self._streamed = ""

    def _tool_results(self, message: UserMessage) -> Iterator[ProviderEvent]:
        blocks = message.content if isinstance(message.content, list) else []
        for block in blocks:
            if isinstance(block, ToolResultBlock):
                yield ToolFinished(block.tool_use_id, not block.is_error, _summary(block.content))
        self._subagent(message.tool_use_result)

    def _usage(
        self, message_id: str, model: str, counts: dict[str, Any] | None, *, complete: bool = False
    ) -> Iterator[ProviderEvent]:
        usage = self._counting.of_message(message_id, model, counts)
        if usage is not None:
            yield UsageReported(usage, complete)

    def _subagent(self, told: Any) -> None:
        """Note what a subagent reports when it is done; its messages come with the counts of their beginning only, or not at all."""
        if isinstance(told, dict) and (agent := told.get("agentId")):
            model = told.get("resolvedModel") or self._model
            self.reports[str(agent)] = {"message": {"id": f"agent:{agent}", "model": model, "usage": told.get("usage")}}

    # --- What the CLI tells about itself ---------------------------------------------------------------------------------

    def _system(self, subtype: str, data: dict[str, Any]) -> Iterator[ProviderEvent]:
        if subtype == "init":
            version, model = str(data.get("claude_code_version", "")), str(data.get("model", ""))
            yield Started(str(data.get("session_id", "")), version, model)
        elif subtype == "api_retry":
            yield self._retry(data)

    def _retry(self, data: dict[str, Any]) -> Retrying:
        """The CLI waits for as long as it says, and asks again."""
        evidence = self._seen((str(data.get("error") or ""),), _number(data.get("error_status")))
        delay = min(max(_number(data.get("retry_delay_ms")), 0), _LONGEST_DELAY)
        at = clock.now() + dt.timedelta(milliseconds=delay)
        attempt, most = _number(data.get("attempt")), _number(data.get("max_retries"))
        return Retrying(outcomes.judge(evidence, VENDOR), at, attempt, most)

    def _rate_limit(self, message: RateLimitEvent) -> RateLimited:
        info = message.rate_limit_info
        resets_at = moment(info.resets_at)
        told = RateLimited(str(info.status), resets_at, str(info.rate_limit_type or ""))
        self._limited = told if told.status == "rejected" and not _goes_on(info) else None
        return told

    # --- The end ---------------------------------------------------------------------------------------------------------

    def _outgrew(self, message: ResultMessage) -> bool:
        """Return whether the answer is as long as the model may write; to the CLI that is an error, once it has gone on three times."""
        return self._error == "max_output_tokens" if message.is_error else message.stop_reason == "max_tokens"

    def _result(self, message: ResultMessage) -> Finished:
        """Look at `is_error` before the subtype: an API failure is an error whose subtype is "success"."""
        details = {
            "turns": message.num_turns,
            "terminal_reason": message.terminal_reason or "",
            "duration_api_ms": message.duration_api_ms,
            "reported_cost_usd": message.total_cost_usd if self.totals_are_whole and self.is_first else None,
        }
        if self._is_whole(message):
            answer = self.said or ("" if message.is_error else message.result or "")
            return Finished(OutcomeClass.OK, text=answer, session_id=message.session_id, details=details)
        evidence = self._evidence(message)
        ruling = outcomes.judge(evidence, VENDOR)
        if ruling.outcome != OutcomeClass.STOPPED:
            said = (message.result or "")[:_LONGEST_REASON]
            log.warning("claude.refused", words=evidence.words, status=evidence.status, said=said)
        return Finished.ruled(ruling, text=self.said, session_id=message.session_id, details=details)

    def _is_whole(self, message: ResultMessage) -> bool:
        ended_well = not message.is_error or self._outgrew(message)
        return ended_well and message.terminal_reason not in _INTERRUPTED

    def _evidence(self, message: ResultMessage) -> Evidence:
        said = (self._error, self.error_type, message.terminal_reason or "", message.subtype)
        return self._seen(said, _number(message.api_error_status))

    def _seen(self, said: tuple[str, ...], status: int) -> Evidence:
        """Return what the CLI said as evidence. It calls it a fault of the servers, too, when nothing answered at all."""
        words = tuple("no_answer" if word in _WITHOUT_STATUS and not status else word for word in said if word)
        resets_at = self._limited.resets_at if self._limited else None
        evidence = Evidence(words, status, limited=self._limited is not None, retry_at=resets_at)
        return with_network(evidence, self.session_id)


def _goes_on(info: RateLimitInfo) -> bool:
    """Return whether the account works on beyond its window, for extra usage that it pays: the window's status stays "rejected" then."""
    return info.overage_status in _BEYOND or info.raw.get("isUsingOverage") is True


def _number(told: Any) -> int:
    """Return a number that the CLI tells; 0 for what is none."""
    return int(told) if isinstance(told, int | float) and abs(told) < 1e15 else 0


def _summary(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")
    return content or ""
