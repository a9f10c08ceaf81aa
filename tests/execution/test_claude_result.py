"""How a turn's last message is read: `is_error` before the subtype, a reset time where one was named."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine
from claude_agent_sdk import (
    AssistantMessage,
    RateLimitEvent,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ToolUseBlock,
)
from claude_agent_sdk.types import RateLimitInfo

from execution.ports import Finished, Notice, ProviderEvent, ToolStarted, UsageReported
from execution.providers.claude.translate import Translator
from execution.providers.telling import OUTGROWN
from execution.retrying import Retrying
from execution.states import Cause, OutcomeClass

RESET = dt.datetime(2026, 11, 22, 23, 0, tzinfo=dt.UTC)


def hear(*messages: Any, translator: Translator | None = None) -> list[ProviderEvent]:
    translator = translator or Translator()
    return [event for message in messages for event in translator.take(message)]


def result(**fields: Any) -> ResultMessage:
    whole = {
        "subtype": "success",
        "duration_ms": 1,
        "duration_api_ms": 1,
        "is_error": False,
        "num_turns": 1,
        "session_id": "s",
        "terminal_reason": "completed",
        "total_cost_usd": 0.5,
        **fields,
    }
    return ResultMessage(**whole)


def said(text: str, **fields: Any) -> AssistantMessage:
    return AssistantMessage(content=[TextBlock(text)], **{"model": "claude", **fields})


def finished(*messages: Any) -> Finished:
    end = hear(*messages)[-1]
    assert isinstance(end, Finished)
    return end


def test_an_api_failure_is_one_although_its_subtype_says_success() -> None:
    apology = said("API Error: 529 Overloaded.", model="<synthetic>", error="server_error")
    end = finished(apology, result(is_error=True, api_error_status=529, terminal_reason="api_error"))
    assert (end.outcome, end.text) == (OutcomeClass.OVERLOAD, "")


def test_what_was_said_before_the_failure_is_kept() -> None:
    end = finished(said("I begin."), result(is_error=True, api_error_status=500, terminal_reason="api_error"))
    assert (end.outcome, end.text) == (OutcomeClass.OVERLOAD, "I begin.")


def test_a_limit_carries_the_time_at_which_it_ends() -> None:
    limit = RateLimitInfo(status="rejected", resets_at=int(RESET.timestamp()), rate_limit_type="five_hour")
    told = RateLimitEvent(rate_limit_info=limit, uuid="u", session_id="s")
    refused = result(is_error=True, api_error_status=429, terminal_reason="api_error")
    assert finished(told, refused).retry_at == RESET


BEYOND = [{"overage_status": "allowed"}, {"overage_status": "allowed_warning"}, {"raw": {"isUsingOverage": True}}]
NOT_BEYOND = [{}, {"overage_status": "rejected"}, {"raw": {"isUsingOverage": False}}]
CASES = [(extra, Cause.OVERLOADED, None) for extra in BEYOND] + [
    (none, Cause.USAGE_LIMIT, RESET) for none in NOT_BEYOND
]


@pytest.mark.parametrize(("extra", "cause", "retry_at"), CASES)
def test_a_window_that_extra_usage_goes_beyond_limits_nothing(extra: dict[str, Any], cause: Cause, retry_at) -> None:
    limit = RateLimitInfo(status="rejected", resets_at=int(RESET.timestamp()), rate_limit_type="seven_day", **extra)
    told = RateLimitEvent(rate_limit_info=limit, uuid="u", session_id="s")
    end = finished(told, result(is_error=True, api_error_status=529, terminal_reason="api_error"))
    assert (end.cause, end.retry_at) == (cause, retry_at)


def test_an_answer_that_is_as_long_as_the_model_may_write_is_one() -> None:
    apology = said("API Error: exceeded the maximum.", model="<synthetic>", error="max_output_tokens")
    failed = result(is_error=True, terminal_reason="api_error", result="API Error: exceeded the maximum.")
    for messages in ([said("Half."), apology, failed], [said("Half."), result(stop_reason="max_tokens")]):
        *_, notice, end = hear(*messages)
        assert (notice, end.outcome, end.text) == (Notice(OUTGROWN, lasting=True), OutcomeClass.OK, "Half.")
    assert hear(apology, failed)[-1].text == ""


def test_an_answer_without_any_text_block_is_taken_from_the_result() -> None:
    assert finished(result(result="Done.")).text == "Done."


def test_the_reported_cost_of_a_resumed_session_is_not_this_turns() -> None:
    fresh, resumed = Translator(), Translator()
    resumed.totals_are_whole = False
    costs = [hear(result(), translator=each)[-1].details["reported_cost_usd"] for each in (fresh, resumed)]
    assert costs == [0.5, None]


def test_a_retry_of_the_cli_is_told() -> None:
    told = {"attempt": 1, "max_retries": 4, "error_status": 529, "error": "server_error", "retry_delay_ms": 60_000}
    with time_machine.travel(dt.datetime(2026, 11, 27, 14, 4, tzinfo=dt.UTC), tick=False):
        (event,) = hear(SystemMessage(subtype="api_retry", data=told))
    assert isinstance(event, Retrying)
    assert (event.because.cause, event.because.outcome) == (Cause.OVERLOADED, OutcomeClass.OVERLOAD)
    assert event.text == "Claude is overloaded; trying again at 14:05:00 UTC (attempt 1 of 4)."


@pytest.mark.parametrize("delay", [None, "soon", -5, float("nan"), 1e300, 10**30])
def test_a_retry_at_no_sensible_moment_harms_nobody(delay) -> None:
    (event,) = hear(SystemMessage(subtype="api_retry", data={"retry_delay_ms": delay, "error_status": "odd"}))
    assert isinstance(event, Retrying) and event.at is not None and event.text.endswith(".")


def test_a_fault_of_the_servers_without_a_status_is_that_nothing_answered() -> None:
    """What the CLI says when it cannot connect, or does not accept who answers."""
    apology = said("API Error: no.", model="<synthetic>", error="server_error")
    assert finished(apology, result(is_error=True, terminal_reason="api_error")).cause == Cause.UNREACHABLE


def test_usage_is_in_disjoint_units() -> None:
    counts = {
        "input_tokens": 10,
        "output_tokens": 7,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 9,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
        "output_tokens_details": {"thinking_tokens": 3},
        "server_tool_use": {"web_search_requests": 2},
    }
    (report,) = [event for event in hear(said("Hi", message_id="m", usage=counts)) if isinstance(event, UsageReported)]
    usage = report.usage
    assert (usage.input_uncached, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h) == (10, 5, 4, 5)
    assert (usage.output, usage.reasoning, usage.web_searches) == (7, 3, 2)


def test_cache_writes_without_a_split_count_as_the_short_ones() -> None:
    counts = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 9}
    (report,) = [event for event in hear(said("Hi", message_id="m", usage=counts)) if isinstance(event, UsageReported)]
    assert (report.usage.cache_write_5m, report.usage.cache_write_1h) == (9, 0)


def test_what_a_subagent_says_is_not_the_answer_but_what_it_uses_counts() -> None:
    counts = {"input_tokens": 1, "output_tokens": 1}
    inner = said("inner thoughts", parent_tool_use_id="t", message_id="m", usage=counts)
    partial = StreamEvent(uuid="u", session_id="s", event={"type": "message_start"}, parent_tool_use_id="t")
    events = hear(partial, inner, result(result="Done."))
    assert [type(event) for event in events] == [UsageReported, Finished]
    assert events[-1].text == "Done."


def test_a_tool_call_names_its_target() -> None:
    call = AssistantMessage(content=[ToolUseBlock("t", "Read", {"file_path": "notes.md"})], model="claude")
    assert hear(call) == [ToolStarted("t", "Read", "notes.md")]
