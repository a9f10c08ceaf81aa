"""The bounds of one execution: each ends it with its class, its cause and a sentence."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from execution import outcomes
from execution.engine.circles import LONGEST_ROUND, Circles
from execution.engine.halts import Limits
from execution.engine.memory import Memory
from execution.ports import ProviderEvent, TextDelta, ToolFinished, ToolStarted, Usage, UsageReported
from execution.providers.claude.translate import VENDOR as CLAUDE
from execution.retrying import Retrying
from execution.shim import processes
from execution.states import Cause, ExecutionState, OutcomeClass
from execution.toolcalls import ToolCall
from fleet.kernel import clock
from tests.execution.running import Run
from tests.factories import execution as made


def circles(calls: str, most: int = 5) -> Circles:
    """Hear one call per letter."""
    heard = Circles(most)
    for letter in calls:
        heard.hear(f"Tool{letter}", letter)
    return heard


class TestCircles:
    @pytest.mark.parametrize(("calls", "round"), [("AAAAA", "A"), ("XABABABABAB", "AB"), ("ABCABCABCABCABC", "ABC")])
    def test_the_same_calls_five_times_in_a_row_are_a_circle(self, calls: str, round: str) -> None:
        assert circles(calls).round == tuple(f"Tool{letter}" for letter in round)

    @pytest.mark.parametrize("calls", ["AAAA", "AAAABAAAA", "ABABABAB", "ABCDABCDABCDABCDABCD", ""])
    def test_less_than_that_is_work(self, calls: str) -> None:
        assert circles(calls).round == ()

    def test_none_is_looked_for_when_the_setting_says_so(self) -> None:
        assert circles("A" * 50, most=0).round == ()

    def test_a_call_without_a_digest_is_like_no_other(self) -> None:
        heard = Circles(3)
        for _ in range(9):
            heard.hear("Bash", "")
        assert heard.round == ()

    @given(st.lists(st.sampled_from("AB"), max_size=30), st.integers(2, 6))
    def test_it_is_found_exactly_when_the_end_of_the_calls_repeats(self, calls: list[str], most: int) -> None:
        heard, found = Circles(most), False
        for number, call in enumerate(calls, start=1):
            heard.hear(call, call)
            so_far = calls[:number]
            rounds = range(1, LONGEST_ROUND + 1)
            found = found or any(so_far[-length * most :] == so_far[-length:] * most for length in rounds)
            assert bool(heard.round) == found

    def test_a_call_is_known_by_its_input_whatever_its_order(self) -> None:
        first = ToolCall("1", "Edit", {"file_path": "a", "new": "x"})
        assert first.digest == ToolCall("2", "Edit", {"new": "x", "file_path": "a"}).digest
        assert first.digest != ToolCall("3", "Edit", {"file_path": "a", "new": "y"}).digest
        assert first.digest != ToolCall("4", "Write", {"file_path": "a", "new": "x"}).digest

    def test_the_halt_says_what_was_repeated(self) -> None:
        limits = Limits(seconds=60, tool_calls=100, stall_seconds=60, repeats=2)
        for number in range(2):
            limits.tool_started(ToolStarted(str(number), "Bash", "ls", "digest"))
        halt = limits.reached()
        assert halt is not None and (halt.outcome, halt.cause) == (OutcomeClass.LIMIT, Cause.LOOP)
        assert "the same call of Bash 2 times in a row" in halt.sentence


def waits(seconds: float | None, status: int = 429) -> Retrying:
    """The provider waits for so long, because of this answer."""
    at = clock.now() + dt.timedelta(seconds=seconds) if seconds is not None else None
    return Retrying(outcomes.judge(outcomes.Evidence(status=status), CLAUDE), at)


class TestWaiting:
    """A provider that asks its API again by itself."""

    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(seconds=900, tool_calls=100, stall_seconds=60, patience=30)

    def test_a_short_wait_is_no_reason_to_end(self, limits: Limits) -> None:
        limits.hear(waits(20))
        assert limits.reached() is None

    def test_a_long_one_ends_it_as_what_it_waits_for_with_the_moment_it_named(self, limits: Limits) -> None:
        limits.hear(wait := waits(45))
        halt = limits.reached()
        assert halt is not None and (halt.outcome, halt.cause) == (OutcomeClass.LIMIT, Cause.RATE_LIMIT)
        assert halt.retry_at == wait.at

    def test_short_ones_are_added_up_until_something_comes(self, limits: Limits) -> None:
        with time_machine.travel(0, tick=False) as clocks, monotonic(clocks):
            for _ in range(2):
                limits.hear(waits(15))
                assert limits.reached() is None
                clocks.shift(9)
            limits.hear(UsageReported(Usage("m", "m")))
            limits.hear(waits(15))
            assert limits.reached() is None
            clocks.shift(16)
            limits.hear(waits(15))
            assert limits.reached() is not None, "since the last sign, it waits 31 seconds"

    @pytest.mark.parametrize(("ending", "ok"), [(False, True), (False, False), (True, True)])
    def test_after_its_tools_the_model_is_asked_again(self, limits: Limits, ending: bool, ok: bool) -> None:
        limits.hear(ToolStarted("1", "Bash", "ls"))
        limits.hear(ToolFinished("1", ok, ""), ending=ending)
        assert limits.is_unheard

    def test_after_a_tool_that_was_cut_off_with_its_turn_it_is_not(self, limits: Limits) -> None:
        limits.hear(ToolStarted("1", "Bash", "ls"))
        limits.hear(ToolFinished("1", False, "[Request interrupted by user for tool use]"), ending=True)
        assert not limits.is_unheard

    @pytest.mark.parametrize("ending", [False, True])
    def test_while_a_subagent_works_its_model_may_be_asked(self, limits: Limits, ending: bool) -> None:
        limits.hear(ToolStarted("1", "Agent", "a job"))
        limits.hear(UsageReported(Usage("m", "m"), complete=True))
        limits.hear(ToolStarted("2", "Bash", "ls"))
        assert limits.is_unheard
        limits.hear(ToolFinished("1", not ending, ""), ending=ending)
        limits.hear(UsageReported(Usage("m2", "m")))
        assert limits.is_unheard == ending, "it is done, unless it was cut off"

    @pytest.mark.parametrize("event", [TextDelta("Once"), ToolStarted("1", "Bash", "ls")])
    def test_what_somebody_has_seen_is_waited_for(self, limits: Limits, event: ProviderEvent) -> None:
        limits.hear(event)
        limits.hear(ToolFinished("1", True, ""))
        limits.hear(waits(600))
        assert limits.reached() is None

    def test_it_is_no_silence_before_the_moment_that_it_named(self, limits: Limits) -> None:
        limits.hear(TextDelta("Once"))
        with time_machine.travel(0, tick=False) as clocks, monotonic(clocks):
            limits._began = 0
            limits.hear(waits(300))
            clocks.shift(359)
            assert limits.reached() is None
            clocks.shift(2)
            halt = limits.reached()
        assert halt is not None and halt.cause == Cause.RATE_LIMIT, "as what it waited for, not as silence"

    @pytest.mark.parametrize(("seconds", "refused"), [(30, False), (100, True), (None, True)])
    def test_what_is_ended_before_it_asks_again_has_nothing_under_way(
        self, limits: Limits, seconds: float | None, refused: bool
    ) -> None:
        """The last is a provider that never says when: it is ended for its silence, and taken to wait."""
        limits.hear(TextDelta("Once"))
        with time_machine.travel(0, tick=False) as clocks, monotonic(clocks):
            limits._began = 0
            limits.hear(waits(seconds))
            clocks.shift(91 if seconds is not None else 61)
            limits.reached()
            assert limits.is_refused is refused
            limits.hear(UsageReported(Usage("m", "m")))
            assert not limits.is_refused, "it was answered"

    def test_the_limit_of_time_holds_all_the_same_and_says_what_it_waited_for(self, limits: Limits) -> None:
        limits.hear(TextDelta("Once"))
        with time_machine.travel(0, tick=False) as clocks, monotonic(clocks):
            limits._began = 0
            limits.hear(waits(3600))
            clocks.shift(901)
            halt = limits.reached()
        assert halt is not None and (halt.outcome, halt.cause) == (OutcomeClass.TIMEOUT, Cause.TIME)
        assert "sending too much" in halt.sentence

    def test_what_waiting_for_does_not_help_is_left_to_the_provider(self, limits: Limits) -> None:
        limits.hear(waits(600, status=400))
        assert limits.reached() is None


@contextmanager
def monotonic(clocks: time_machine.Coordinates) -> Iterator[None]:
    """Let time.monotonic() go with the clock that a test moves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", time.time)
        yield


class TestMemory:
    def test_a_tree_within_its_limit_goes_on(self) -> None:
        assert Memory(processes.facts(_own()), megabytes=100_000).exceeded() is None

    def test_a_tree_beyond_its_limit_is_ended_at_once(self) -> None:
        halt = Memory(processes.facts(_own()), megabytes=1).exceeded()
        assert halt is not None and (halt.outcome, halt.cause, halt.at_once) == (OutcomeClass.LIMIT, Cause.MEMORY, True)
        assert "1 MB of memory" in halt.sentence

    @pytest.mark.parametrize("megabytes", [0, 1])
    def test_nothing_is_weighed_without_a_process_or_a_limit(self, megabytes: int) -> None:
        process = None if megabytes else processes.facts(_own())
        assert Memory(process, megabytes=megabytes).exceeded() is None

    def test_a_cgroup_holds_what_the_shim_started_and_tells_of_its_kills(self, tmp_path: Path, settings: Any) -> None:
        """The files are the kernel's; here they are plain ones, so that the protocol is what is tested."""
        settings.FLEET_CGROUP = str(tmp_path)
        own = processes.facts(_own())
        memory = Memory(own, megabytes=64)
        memory.enclose()
        (cage,) = tmp_path.iterdir()
        assert (cage / "memory.max").read_text() == str(64 * 1024 * 1024)
        assert memory.exceeded() is None  # the kernel counts, nobody weighs: this process is far larger
        (cage / "memory.events").write_text("oom 1\noom_kill 1\n")
        halt = memory.exceeded()
        assert halt is not None and halt.cause == Cause.MEMORY

    def test_without_a_delegated_cgroup_the_tree_is_weighed(self, settings: Any) -> None:
        settings.FLEET_CGROUP = "/proc/nowhere"
        memory = Memory(processes.facts(_own()), megabytes=1)
        memory.enclose()
        assert memory.exceeded() is not None


def _own() -> int:
    import os

    return os.getpid()


def test_the_mock_going_round_is_stopped(run: Run, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.FLEET_REPEATED_CALLS = 1
    row = run(made.queued("mock:tool=Bash", identity=made.BotFactory(tools=["Bash"])))
    assert (row.state, row.outcome, row.cause) == (ExecutionState.FAILED, OutcomeClass.LIMIT, Cause.LOOP)
