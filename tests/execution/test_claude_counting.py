"""What Claude's messages used, however often and however briefly a stream tells it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from execution.ports import Usage
from execution.providers.claude.counting import Counting

START = {
    "input_tokens": 1000,
    "cache_read_input_tokens": 2000,
    "cache_creation_input_tokens": 5000,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 5000},
    "output_tokens": 1,
}
TOTALS = {
    "claude": {
        "inputTokens": 1000,
        "cacheReadInputTokens": 2000,
        "cacheCreationInputTokens": 5000,
        "cacheCreationEphemeral1hInputTokens": 5000,
        "outputTokens": 200,
    }
}
WHOLE = Usage("m1", "claude", input_uncached=1000, cache_read=2000, cache_write_1h=5000, output=200)


def counted(*reports: dict[str, Any]) -> tuple[Usage | None, Counting]:
    """Let these be told of one message, one after the other; return the last count."""
    counting = Counting()
    return [counting.of_message("m1", "claude", report) for report in reports][-1], counting


def test_an_end_that_tells_its_output_alone_keeps_what_the_beginning_told() -> None:
    usage, counting = counted(START, {"output_tokens": 200})
    assert usage == WHOLE
    assert counting.rest(TOTALS, session_id="s") is None


def test_cache_writes_that_an_end_does_not_split_stay_as_the_beginning_split_them() -> None:
    usage, counting = counted(START, {**START, "cache_creation": None, "output_tokens": 200})
    assert usage == WHOLE
    assert counting.rest(TOTALS, session_id="s") is None


def test_cache_writes_that_nobody_splits_are_short_ones() -> None:
    usage, _ = counted({"cache_creation_input_tokens": 70}, {"cache_creation_input_tokens": 90})
    assert usage == Usage("m1", "claude", cache_write_5m=90)


def test_what_cannot_be_true_is_handed_on_and_spoils_nothing() -> None:
    counting = counted(START)[1]
    odd = counting.of_message("m1", "claude", {"output_tokens": -5})
    assert odd is not None and not odd.is_believable()
    assert counting.of_message("m1", "claude", {"output_tokens": 200}) == WHOLE


@given(st.sets(st.sampled_from([name for name in START if name != "output_tokens"])))
def test_whatever_an_end_leaves_out_the_message_counts_the_same(left_out: set[str]) -> None:
    end = {name: told for name, told in START.items() if name not in left_out}
    assert counted(START, {**end, "output_tokens": 200})[0] == WHOLE
