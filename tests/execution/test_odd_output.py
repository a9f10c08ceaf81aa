"""What a provider says that no sane one would: its answer was paid for, so it is kept, and no end is lost over a character or a number."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from claude_agent_sdk.types import RateLimitEvent, RateLimitInfo

from budgets.models import Reservation, TokenLedger
from budgets.states import Unit
from execution import actions, queries
from execution.models import Execution
from execution.ports import (
    Finished,
    ProviderEvent,
    RateLimited,
    Recovered,
    Started,
    ToolFinished,
    ToolStarted,
    Usage,
    UsageReported,
)
from execution.providers.claude.translate import Translator
from execution.providers.mock import script
from execution.providers.mock.provider import MockProvider
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock
from tests.execution.running import Run
from tests.factories import execution as made

FINE = Finished(OutcomeClass.OK, text="fine")
BROKEN = "It broke."


def says(monkeypatch: pytest.MonkeyPatch, *events: ProviderEvent) -> None:
    """Let the mock say just this."""

    def play(*_: Any, **__: Any) -> Iterator[script.Step]:
        yield from ((0.0, event) for event in events)

    monkeypatch.setattr(script, "play", play)


def used(message: str = "m", model: str = "mock-1", **units: int) -> UsageReported:
    return UsageReported(Usage(message, model, **units), complete=True)


def posted(execution: Execution) -> int:
    """What the ledger has of its uncached input."""
    rows = TokenLedger.objects.filter(execution_id=execution.pk, unit=Unit.INPUT_UNCACHED)
    return sum(rows.values_list("quantity", flat=True))


@pytest.mark.parametrize(
    "odd",
    [
        ToolStarted("call\x00", "Ba\x00sh\ud800", "tar\x00get", ""),
        ToolFinished("call", True, "\x00out\ud800"),
        Started("s\x00", "1.0\x00", "m\x00"),
        Started("s" * 100, "nightly-" * 10, "m"),
        RateLimited("allowed\x00", None, "\ud800"),
        used("message\x00", input_uncached=7),
        used("m" * 150, input_uncached=7),
        used(model="x" * 150, input_uncached=7),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_answer_is_kept_whatever_is_said_before_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, odd: ProviderEvent
) -> None:
    says(monkeypatch, odd, FINE)
    row = run(made.queued())
    assert (row.state, row.answer, row.spend_stage) == (ExecutionState.SUCCEEDED, "fine", SpendStage.SETTLED)
    assert "\x00" not in json.dumps([event.payload for event in queries.events_after(row.pk)])
    assert posted(row) == row.input_uncached == (7 if isinstance(odd, UsageReported) else 0)


@pytest.mark.parametrize("session", ["s\x00", "s" * 100])
def test_a_session_with_an_odd_name_ends(run: Run, monkeypatch: pytest.MonkeyPatch, session: str) -> None:
    says(monkeypatch, Finished(OutcomeClass.OK, text="fine", session_id=session))
    assert run(made.queued()).answer == "fine"


@pytest.mark.parametrize("odd", ["last\x00words", "\ud800", math.nan, {"deep\x00": ["\x00"]}])
def test_a_failure_is_told_whatever_its_details_are(run: Run, monkeypatch: pytest.MonkeyPatch, odd: Any) -> None:
    says(monkeypatch, Finished(OutcomeClass.ERROR, sentence=BROKEN, details={"stderr": odd}))
    row = run(made.queued())
    assert (row.state, row.sentence, row.spend_stage) == (ExecutionState.FAILED, BROKEN, SpendStage.SETTLED)


@pytest.mark.parametrize("number", [-5, 10**12])
def test_usage_that_cannot_be_true_is_not_counted_and_makes_the_cost_unknown(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    says(monkeypatch, used("first", input_uncached=50), used("second", output=number), FINE)
    row = run(made.queued())
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "fine")
    assert (row.spend_stage, row.cost_basis) == (SpendStage.UNKNOWN, "unknown")
    assert Reservation.objects.get(pk=row.reservation_id).state == "uncertain"
    assert (row.input_uncached, row.output) == (50, 0)
    assert posted(row) == 50


def test_what_is_recovered_of_a_lost_turn_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    usages = (Usage("m" * 150, "mock-1", output=3), Usage("n", "mock-1", output=-3))
    found = Recovered("It\x00 said this.", usages, is_whole=True)
    monkeypatch.setattr(MockProvider, "recover", lambda *_: found)
    execution = made.running(process=made.dead_process())
    Execution.objects.filter(pk=execution.pk).update(lease_until=clock.db_now(-dt.timedelta(seconds=1)))
    assert actions.sweep() == 1
    row = Execution.objects.get(pk=execution.pk)
    assert row.state == ExecutionState.SUCCEEDED and row.answer.startswith("It said this.")
    assert row.output == 3


@pytest.mark.parametrize("resets_at", [1_790_000_000_000, 10**18, "tomorrow", None])
def test_a_moment_that_is_none_does_not_end_a_turn(resets_at: Any) -> None:
    told = RateLimitEvent(RateLimitInfo(status="rejected", resets_at=resets_at), uuid="u", session_id="s")
    assert list(Translator().take(told)) == [RateLimited("rejected", None)]
