"""A CLI that waits by itself for an API that refuses it, and moments that an API names: neither keeps a message or a login for ever."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from budgets.models import Reservation
from execution.engine.halts import Halt, Limits
from execution.models import Breaker, Execution
from execution.outcomes import POLICIES, believable
from execution.states import Cause, EventKind, ExecutionState, OutcomeClass
from fleet.kernel import clock
from tests.emulators.model import ModelEmulator
from tests.execution.running import run, table
from tests.faults.test_execution_api import BOTH, Ask, ask, check, check_followed, model

__all__ = ["ask", "model", "run", "table"]
pytestmark = [pytest.mark.realcli, pytest.mark.timeout(180)]


def waits_of(row: Execution) -> list[dict[str, Any]]:
    return [event.payload for event in row.events.filter(kind=EventKind.RETRYING).order_by("sequence")]


@BOTH
def test_a_short_wait_is_told_and_waited_for(ask: Ask, model: ModelEmulator, provider: str) -> None:
    model.reply("hello", "Good day.")
    model.fail("hello", 429, retry_after=2, times=1)
    row = ask(provider)
    assert (row.outcome, row.answer) == (OutcomeClass.OK, "Good day.")
    (told,) = waits_of(row)
    name = {"claude": "Claude", "codex": "OpenAI"}[provider]
    assert told["text"].startswith(f"{name} asks us to wait; trying again") and told["cause"] == Cause.RATE_LIMIT
    if provider == "claude":  # Codex does not say when
        assert told["at"] and "UTC (attempt 1 of 1)" in told["text"]


def test_a_long_wait_that_the_cli_tells_of_goes_to_the_next_of_the_chain_at_once(
    ask: Ask, model: ModelEmulator, settings: Any
) -> None:
    settings.FLEET_RETRY_SECONDS = 5
    model.fail("hello", 429, retry_after=50)
    row = ask("claude")
    check(row, OutcomeClass.LIMIT, Cause.RATE_LIMIT)
    check_followed(row)
    (told,) = waits_of(row)
    breaker = Breaker.objects.get()
    assert (breaker.state, breaker.named) == ("open", True), "until the moment that the API named"
    assert breaker.until == row.retry_at == dt.datetime.fromisoformat(told["at"])
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("provider", "booked"), [("claude", ("settled", "", "settled")), ("codex", ("unknown", "unknown", "uncertain"))]
)
def test_what_is_stopped_before_it_asks_again_cost_nothing_if_it_is_known_when_it_would_have(
    ask: Ask, model: ModelEmulator, monkeypatch: pytest.MonkeyPatch, provider: str, booked: tuple[str, str, str]
) -> None:
    """Codex does not say when: it may have been asking already."""
    model.fail("hello", 429, retry_after=50)
    stop = Halt(OutcomeClass.STOPPED, "Stopped: enough.")
    monkeypatch.setattr(Limits, "reached", lambda limits: stop if limits._waits.because else None)
    row = ask(provider)
    assert (row.state, row.outcome, row.cost_nano_usd) == (ExecutionState.STOPPED, OutcomeClass.STOPPED, None)
    reservation = Reservation.objects.get(pk=row.reservation_id)
    assert (row.spend_stage, row.cost_basis, reservation.state) == booked


RETRY_AFTER = ["-5", "0", "99999999999", "soon", "", "Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 01 Jan 2038 00:00:00 GMT"]


@BOTH
@pytest.mark.parametrize("said", RETRY_AFTER)
def test_an_odd_retry_after_parks_no_login_for_ever(
    ask: Ask, model: ModelEmulator, settings: Any, provider: str, said: str
) -> None:
    settings.FLEET_RETRY_SECONDS, settings.FLEET_STALL_SECONDS = 5, 6
    model.fail("hello", 429, headers={"Retry-After": said})
    row = ask(provider)
    check(row, OutcomeClass.LIMIT, Cause.RATE_LIMIT)
    check_shut_for_no_longer_than(POLICIES[Cause.RATE_LIMIT].believes)


RESETS = {
    "past": "1445412480",
    "in ten years": "2111700000",
    "negative": "-5",
    "a date": "Fri, 01 Jan 2038 00:00:00 GMT",
    "too large": "99999999999999999999",
    "nothing": "",
}


@BOTH
@pytest.mark.parametrize("said", RESETS.values(), ids=RESETS)
def test_an_odd_moment_of_a_window_parks_no_login_for_ever(
    ask: Ask, model: ModelEmulator, settings: Any, provider: str, said: str
) -> None:
    settings.FLEET_RETRY_SECONDS, settings.FLEET_STALL_SECONDS = 5, 6
    if provider == "claude":
        settings.ANTHROPIC_API_KEY, settings.CLAUDE_CODE_OAUTH_TOKEN = "", "sk-ant-oat01-not-a-token"
    windows = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": said,
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": said,
    }
    kind = "usage_limit_reached" if provider == "codex" else "rate_limit_error"
    model.fail("hello", 429, kind=kind, code=kind, headers=windows)
    row = ask(provider)
    assert row.cause in (Cause.USAGE_LIMIT, Cause.RATE_LIMIT), row.sentence
    assert row.retry_at is None, "nobody believes it"
    check_shut_for_no_longer_than(POLICIES[Cause.USAGE_LIMIT].pause)


def check_shut_for_no_longer_than(most: dt.timedelta) -> None:
    """The login is left alone, until a moment that comes."""
    breaker = Breaker.objects.get()
    assert breaker.state == "open" and breaker.until is not None
    assert dt.timedelta() < breaker.until - clock.now() <= most


@pytest.mark.parametrize("cause", POLICIES)
def test_a_moment_is_believed_up_to_a_bound_of_its_cause(cause: Cause) -> None:
    now = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
    bound, second = POLICIES[cause].believes, dt.timedelta(seconds=1)
    for ahead in (-second, dt.timedelta(), bound + second, dt.timedelta(days=3650)):
        assert believable(now + ahead, cause, now=now) is None
    if bound:
        assert believable(now + bound, cause, now=now) == now + bound
    assert bound <= dt.timedelta(days=8), "no window of a login is longer than a week"
    assert believable(None, cause, now=now) is None
