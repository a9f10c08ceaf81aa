"""From the app-server's notifications to events of ours: one `Translator` per turn, no input or output of its own."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

import structlog
from openai_codex.generated.notification_registry import NOTIFICATION_MODELS
from openai_codex.generated.v2_all import (
    AccountRateLimitsUpdatedNotification,
    AgentMessageDeltaNotification,
    AgentMessageThreadItem,
    CommandExecutionThreadItem,
    ErrorNotification,
    FileChangeThreadItem,
    ItemCompletedNotification,
    ItemStartedNotification,
    McpToolCallThreadItem,
    ModelReroutedNotification,
    RateLimitSnapshot,
    ThreadTokenUsageUpdatedNotification,
    Turn,
    TurnCompletedNotification,
    TurnError,
)
from pydantic import ValidationError

from execution import outcomes
from execution.cleaning import moment
from execution.outcomes import Evidence, Vendor
from execution.ports import (
    Finished,
    Notice,
    ProviderEvent,
    RateLimited,
    TextDelta,
    ToolFinished,
    ToolStarted,
    UsageReported,
)
from execution.providers.codex.calls import calls_of
from execution.providers.codex.counting import Counting
from execution.providers.codex.rpc import Incoming
from execution.providers.network import with_network
from execution.retrying import Retrying
from execution.shim.pipes import Unintelligible
from execution.states import OutcomeClass

log = structlog.get_logger(__name__)
_BETWEEN_TEXTS = "\n\n"
VENDOR = Vendor(
    name="OpenAI",
    account="The OpenAI account",
    key="Check OPENAI_API_KEY in .env and restart.",
    model="Choose another model, or set FLEET_CODEX_MODEL.",
)
_LONGEST_SUMMARY, _LONGEST_REASON = 2_000, 500
_FULL = 100  # percent of a limit
_OURS = (
    *("account/rateLimits/updated", "error", "item/agentMessage/delta", "item/completed", "item/started"),
    *("model/rerouted", "thread/tokenUsage/updated", "turn/completed"),
)


class Translator:
    """Turns the notifications of one turn into events and remembers what the last one needs."""

    def __init__(self, counting: Counting, *, session_id: str, model: str, max_steps: int) -> None:
        self.counting = counting
        self.items: dict[str, Any] = {}  # tool items that have begun, by id
        self.refusals: dict[str, str] = {}  # why a call may not run, by id
        self.too_many_steps = False
        self._session_id, self._model, self._max_steps = session_id, model, max_steps
        self._used_tools = False  # since the last message
        self._texts: list[str] = []
        self._streamed = ""
        self._limited_until: dt.datetime | None = None

    @property
    def said(self) -> str:
        """Return everything the model has said so far."""
        return _BETWEEN_TEXTS.join([*self._texts, *([self._streamed] if self._streamed else [])])

    def take(self, incoming: Incoming) -> Iterator[ProviderEvent]:
        """Yield what this notification tells; nothing for most kinds. Raises Unintelligible."""
        if incoming.method not in _OURS:
            return
        match _parsed(incoming):
            case AgentMessageDeltaNotification() as told:
                yield from self._text(told.delta)
            case ItemStartedNotification() as told:
                yield from self._started(told.item.root)
            case ItemCompletedNotification() as told:
                yield from self._completed(told.item.root)
            case ThreadTokenUsageUpdatedNotification() as told:
                yield from self._usage(told)
            case other:
                yield from self._rarer(other)

    def _rarer(self, told: Any) -> Iterator[ProviderEvent]:
        match told:
            case AccountRateLimitsUpdatedNotification():
                yield from self._limits(told.rate_limits)
            case ModelReroutedNotification():
                self._model = told.to_model
                yield Notice(f"OpenAI answers with {told.to_model} instead of {told.from_model}.", lasting=True)
            case ErrorNotification(will_retry=True):
                self._streamed = ""  # the message will be written from the start
                evidence = with_network(_evidence(told.error), self._session_id)
                yield Retrying(outcomes.judge(evidence, VENDOR))
            case TurnCompletedNotification():
                yield self._result(told.turn)

    # --- The answer and the tools as they come ---------------------------------------------------------------------------

    def _text(self, text: str) -> Iterator[ProviderEvent]:
        if text:
            first = not self._streamed and self._texts
            self._streamed += text
            yield TextDelta(_BETWEEN_TEXTS + text if first else text)

    def _started(self, item: Any) -> Iterator[ProviderEvent]:
        calls = calls_of(item)
        if calls and item.id not in self.items:
            self.items[item.id], self._used_tools = item, True
            targets, digests = ", ".join(call.target for call in calls), "".join(call.digest for call in calls)
            yield ToolStarted(item.id, calls[0].tool, targets, digests)

    def _completed(self, item: Any) -> Iterator[ProviderEvent]:
        if isinstance(item, AgentMessageThreadItem):
            if not self._streamed:
                yield from self._text(item.text)
            self._texts += [item.text] if item.text else []
            self._streamed = ""
        elif calls_of(item):
            yield from self._started(item)
            refusal = self.refusals.get(item.id)
            ok = refusal is None and _went_well(item)
            yield ToolFinished(item.id, ok, (refusal or _summary(item))[:_LONGEST_SUMMARY])

    def _usage(self, told: ThreadTokenUsageUpdatedNotification) -> Iterator[ProviderEvent]:
        usage = self.counting.take(told.token_usage.total, turn_id=told.turn_id, model=self._model)
        if usage is not None:
            self.too_many_steps = self._used_tools and self.counting.messages >= self._max_steps
            self._used_tools = False
            yield UsageReported(usage, complete=True)

    def _limits(self, told: RateLimitSnapshot) -> Iterator[ProviderEvent]:
        """A login's windows; a key has none. The one that is used up and starts anew last is what to wait for."""
        windows = {"primary": told.primary, "secondary": told.secondary}
        for kind, window in windows.items():
            if window is None:
                continue
            resets_at = moment(window.resets_at)
            used_up = window.used_percent >= _FULL
            if used_up and resets_at:
                self._limited_until = max(resets_at, self._limited_until or resets_at)
            yield RateLimited("rejected" if used_up else "allowed", resets_at, kind)

    # --- The end ---------------------------------------------------------------------------------------------------------

    def _result(self, turn: Turn) -> Finished:
        details = {"messages": self.counting.messages, "turn": turn.id, "duration_ms": turn.duration_ms}
        if turn.status.value == "completed":
            return Finished(OutcomeClass.OK, text=self.said, session_id=self._session_id, details=details)
        evidence = _evidence(turn.error, turn=turn.status.value, steps=self.too_many_steps, until=self._limited_until)
        evidence = with_network(evidence, self._session_id)
        ruling = outcomes.judge(evidence, VENDOR)
        if ruling.outcome != OutcomeClass.STOPPED:
            said = turn.error.message[:_LONGEST_REASON] if turn.error else ""
            log.warning("codex.refused", words=evidence.words, status=evidence.status, said=said)
        told = {"words": list(evidence.words), "status": evidence.status}
        return Finished.ruled(ruling, text=self.said, session_id=self._session_id, details={**details, **told})


def _parsed(incoming: Incoming) -> Any:
    try:
        return NOTIFICATION_MODELS[incoming.method].model_validate(incoming.params)
    except ValidationError as error:
        raise Unintelligible(f"Its “{incoming.method}” is not the one we know.") from error


def _evidence(
    error: TurnError | None, *, turn: str = "", steps: bool = False, until: dt.datetime | None = None
) -> Evidence:
    info = error.model_dump(by_alias=True, mode="json").get("codexErrorInfo") if error else None
    name, fields = info, {}
    if isinstance(info, dict):
        name, fields = next(iter(info.items())) if len(info) == 1 else ("", {})
    said = ("too_many_steps" if steps else "", turn, str(name or ""), _api_code(error))
    status = int((fields or {}).get("httpStatusCode") or 0)
    return Evidence(tuple(word for word in said if word), status, retry_at=until)


def _api_code(error: TurnError | None) -> str:
    """Return the API's error code; Codex hands on the JSON of a refused request as it came."""
    try:
        told = json.loads(error.message)["error"]["code"] if error else ""
    except (ValueError, KeyError, TypeError):
        return ""
    return str(told or "")


def _went_well(item: CommandExecutionThreadItem | FileChangeThreadItem | McpToolCallThreadItem) -> bool:
    status: Enum = item.status
    return status.value == "completed" and not getattr(item, "exit_code", 0)


def _summary(item: CommandExecutionThreadItem | FileChangeThreadItem | McpToolCallThreadItem) -> str:
    match item:
        case CommandExecutionThreadItem():
            return item.aggregated_output or ""
        case FileChangeThreadItem():
            return "\n".join(change.path for change in item.changes)
        case McpToolCallThreadItem(error=None):
            blocks = item.result.content if item.result else []
            return "\n".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))
    return item.error.message if item.error else ""
