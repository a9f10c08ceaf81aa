"""A model API that fails: every turn ends with its class, its cause and a sentence, its reservation is settled, its login judged.

The real CLIs of Claude and Codex ask an emulated API. What follows for a conversation is in `tests/conversations/test_failover.py`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from budgets.models import Reservation, TokenLedger
from execution import queries
from execution.engine.halts import Halt, Limits
from execution.engine.transcript import Transcript
from execution.models import Breaker, Execution
from execution.outcomes import policy_of
from execution.ports import ProviderEvent, TextDelta
from execution.providers import registry
from execution.states import Cause, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock
from tests.emulators.gate import Gate
from tests.emulators.model import ModelEmulator, ModelRequest, Usage
from tests.execution.running import Run, run, table
from tests.factories import execution as made

__all__ = ["run", "table"]
pytestmark = [pytest.mark.realcli, pytest.mark.timeout(600)]

Ask = Callable[..., Execution]
BOTH = pytest.mark.parametrize("provider", ["claude", "codex"])


@pytest.fixture
def model(model_emulator: ModelEmulator, settings: Any, monkeypatch: pytest.MonkeyPatch) -> ModelEmulator:
    """Both CLIs ask this API with keys that exist only here, and give up soon."""
    settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = "sk-ant-not-a-key", model_emulator.url
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "sk-not-a-key", f"{model_emulator.url}/v1"
    monkeypatch.setattr("execution.providers.claude.launch.RETRIES", 1)
    monkeypatch.setattr("execution.providers.codex.launch.RETRIES", 1)
    return model_emulator


@pytest.fixture
def ask(run: Run) -> Ask:
    """Let a provider answer, as the login that it has."""

    def asked(provider: str, text: str = "hello", **bot: Any) -> Execution:
        one = registry.get(provider)
        one.warm_up()
        identity = made.BotFactory(**bot)
        answers = one.capabilities.model_for(identity.model)
        return run(made.queued(text, identity=identity, provider=provider, model=answers, login=one.login()))

    return asked


def check(row: Execution, outcome: OutcomeClass, cause: Cause) -> None:
    """It ended so, was paid for what it used, and left nothing held or running."""
    assert (row.state, row.outcome, row.cause) == (ExecutionState.FAILED, outcome, cause), row.sentence
    assert row.sentence.endswith(".")
    assert row.spend_stage == SpendStage.SETTLED and row.process_gone_at is not None
    assert Reservation.objects.get(pk=row.reservation_id).state == "settled"
    posted = TokenLedger.objects.filter(execution_id=row.pk)
    assert {line.provider for line in posted} <= {row.provider}
    assert (row.cost_nano_usd or 0) == sum(line.cost_nano_usd or 0 for line in posted)


def check_followed(row: Execution) -> None:
    """What follows by itself is what the policy of the cause says, as far as it had no effect."""
    policy, breaker = policy_of(row.cause), Breaker.objects.filter(provider=row.provider).first()
    if not policy.opens_after:
        assert breaker is None
        return
    assert breaker is not None and not queries.had_effect(row)
    assert breaker.state == ("open" if policy.opens_after == 1 else "closed")
    if breaker.until and not breaker.named:
        assert 0 <= (policy.pause - (breaker.until - clock.now())).total_seconds() <= 30


@dataclass(frozen=True)
class Refusal:
    """How the API refuses a call, and what has to become of it: class, cause, words of the sentence, who is asked next, the login."""

    status: int
    outcome: OutcomeClass
    cause: Cause
    sentence: str
    fails_over: bool = True
    login: str | None = "open"
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.status}{'-' + self.kind if self.kind else ''}"


KEY = "does not accept our key or login. Check"
FORBIDDEN = "does not let our key or login do this: it may lack the permission"
NO_CREDIT = "account has no credit left. Top it up"
REFUSALS = [
    Refusal(401, OutcomeClass.AUTH, Cause.AUTH, KEY),
    Refusal(401, OutcomeClass.AUTH, Cause.AUTH, KEY, kind="permission_error"),
    Refusal(402, OutcomeClass.LIMIT, Cause.BILLING, NO_CREDIT),
    Refusal(403, OutcomeClass.AUTH, Cause.AUTH, FORBIDDEN),
    Refusal(404, OutcomeClass.ERROR, Cause.MODEL, "does not know this bot's model", fails_over=False, login=None),
    Refusal(
        413,
        OutcomeClass.CONTEXT_FULL,
        Cause.TOO_LONG,
        "larger than the model's API takes",
        fails_over=False,
        login=None,
    ),
    Refusal(429, OutcomeClass.LIMIT, Cause.RATE_LIMIT, "sending too much at the moment"),
    Refusal(500, OutcomeClass.OVERLOAD, Cause.SERVER_FAULT, "servers had a fault", login="closed"),
    Refusal(503, OutcomeClass.OVERLOAD, Cause.OVERLOADED, "is overloaded at the moment", login="closed"),
    Refusal(529, OutcomeClass.OVERLOAD, Cause.OVERLOADED, "is overloaded at the moment", login="closed"),
]
# What only Claude's CLI hands on: how the API calls its error.
BY_NAME = [
    Refusal(401, OutcomeClass.LIMIT, Cause.BILLING, NO_CREDIT, kind="billing_error"),
    Refusal(403, OutcomeClass.LIMIT, Cause.BILLING, NO_CREDIT, kind="billing_error"),
]


@pytest.mark.parametrize(
    ("provider", "refusal"),
    [*((name, one) for name in ("claude", "codex") for one in REFUSALS), *(("claude", one) for one in BY_NAME)],
    ids=str,
)
def test_a_refused_call(ask: Ask, model: ModelEmulator, provider: str, refusal: Refusal) -> None:
    model.fail("hello", refusal.status, kind=refusal.kind)
    row = ask(provider)
    check(row, refusal.outcome, refusal.cause)
    check_followed(row)
    assert refusal.sentence in row.sentence
    assert policy_of(row.cause).fails_over is refusal.fails_over
    assert Breaker.objects.values_list("state", flat=True).first() == refusal.login


def test_of_a_refusal_by_status_codex_tells_no_name_so_its_sentence_leaves_it_open(
    ask: Ask, model: ModelEmulator
) -> None:
    model.fail("hello", 403, kind="billing_error")
    row = ask("codex")
    check(row, OutcomeClass.AUTH, Cause.AUTH)
    assert "or its account be blocked or out of credit" in row.sentence


@pytest.mark.parametrize(("provider", "cause"), [("claude", Cause.MALFORMED), ("codex", Cause.UNKNOWN)])
def test_a_request_that_is_refused_as_it_is(
    ask: Ask, model: ModelEmulator, provider: str, cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    """It says nothing about the login, so that goes on; the API's reason is in the log. Codex hands on nothing but the reason."""
    model.fail("hello", 400, message="messages.1: one of these is not allowed")
    row = ask(provider)
    check(row, OutcomeClass.ERROR, cause)
    check_followed(row)
    assert "one of these is not allowed" in caplog.text and "one of these" not in row.sentence


@BOTH
def test_a_call_that_is_to_be_repeated_later(ask: Ask, model: ModelEmulator, provider: str) -> None:
    model.fail("hello", 429, retry_after=2)
    row = ask(provider)
    check(row, OutcomeClass.LIMIT, Cause.RATE_LIMIT)
    check_followed(row)


def test_a_cli_that_waits_as_long_as_it_was_told_ends_as_what_it_waits_for(
    ask: Ask, model: ModelEmulator, settings: Any
) -> None:
    """Codex obeys Retry-After in silence: the limit of silence ends it, and its login is known to be at its limit."""
    settings.FLEET_STALL_SECONDS = 8
    model.fail("hello", 429, retry_after=3600)
    row = ask("codex")
    check(row, OutcomeClass.LIMIT, Cause.RATE_LIMIT)
    check_followed(row)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("provider", "status", "code", "cause"),
    [("claude", 400, "", Cause.BILLING), ("codex", 429, "insufficient_quota", Cause.USAGE_LIMIT)],
)
def test_an_account_without_credit(
    ask: Ask, model: ModelEmulator, provider: str, status: int, code: str, cause: Cause
) -> None:
    """Codex calls a used-up credit and a used-up limit by one name."""
    model.fail("hello", status, code=code, kind=code)
    row = ask(provider)
    check(row, OutcomeClass.LIMIT, cause)
    check_followed(row)
    assert "credit" in row.sentence


@BOTH
def test_a_used_up_window_that_names_its_end(ask: Ask, model: ModelEmulator, provider: str, settings: Any) -> None:
    ends = (clock.now() + dt.timedelta(hours=1)).replace(microsecond=0)
    if provider == "claude":  # only a login has windows, a key has none
        settings.ANTHROPIC_API_KEY, settings.CLAUDE_CODE_OAUTH_TOKEN = "", "sk-ant-oat01-not-a-token"
    moment = str(int(ends.timestamp()))
    windows = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": moment,
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": moment,
    }
    kind = "usage_limit_reached" if provider == "codex" else "rate_limit_error"
    model.fail("hello", 429, kind=kind, code=kind, headers=windows)
    row = ask(provider)
    check(row, OutcomeClass.LIMIT, Cause.USAGE_LIMIT)
    assert row.retry_at == ends
    breaker = Breaker.objects.get()
    assert (breaker.state, breaker.until, breaker.named) == ("open", ends, True)


@pytest.mark.parametrize(("provider", "cause"), [("claude", Cause.UNREACHABLE), ("codex", Cause.UNKNOWN)])
def test_an_answer_that_is_none(ask: Ask, model: ModelEmulator, provider: str, cause: Cause) -> None:
    model.garbage("hello")
    row = ask(provider)
    check(row, OutcomeClass.ERROR, cause)
    check_followed(row)


@BOTH
@pytest.mark.parametrize("body", [b'event: message_start\ndata: {"type": "mess\n\n', b"data: not json\n\n"])
def test_an_answer_of_broken_json(ask: Ask, model: ModelEmulator, provider: str, body: bytes) -> None:
    model.garbage("hello", body=body, content_type="text/event-stream")
    row = ask(provider)
    assert (row.state, row.answer) == (ExecutionState.FAILED, "")
    assert row.outcome in (OutcomeClass.ERROR, OutcomeClass.OVERLOAD) and row.sentence.endswith(".")
    assert Reservation.objects.get(pk=row.reservation_id).state == "settled"


@BOTH
def test_an_answer_that_is_always_cut_before_its_first_word(ask: Ask, model: ModelEmulator, provider: str) -> None:
    model.cut("hello", "Once upon a time there was a bot.", after_events=1)
    row = ask(provider)
    assert (row.state, row.answer, queries.had_effect(row)) == (ExecutionState.FAILED, "", False)
    assert Reservation.objects.get(pk=row.reservation_id).state == "settled"


@BOTH
def test_an_answer_of_which_words_were_shown_is_never_given_to_another(
    ask: Ask, model: ModelEmulator, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Once upon a time there was a bot, and it had time, and it told of it at length. " * 4
    gate, take = Gate(), Transcript.take
    model.cut("hello", text, after_events=12, gate=gate).details["after_events"] = 11

    def heard(transcript: Transcript, event: ProviderEvent) -> None:
        take(transcript, event)
        if isinstance(event, TextDelta):  # the words before the cut have arrived
            gate.release()

    monkeypatch.setattr(Transcript, "take", heard)
    row = ask(provider)
    assert row.state == ExecutionState.FAILED
    assert queries.had_effect(row)


@BOTH
def test_silence_ends_at_the_limit_and_is_not_repeated(
    ask: Ask, model: ModelEmulator, provider: str, settings: Any
) -> None:
    """The answer has begun: Claude tells what was read for it, Codex tells nothing."""
    settings.FLEET_STALL_SECONDS = 8
    model.silence("hello", 30)
    row = ask(provider)
    if provider == "claude":
        check(row, OutcomeClass.TIMEOUT, Cause.SILENCE)
        assert row.cost_nano_usd
    else:
        assert (row.state, row.outcome, row.cause) == (ExecutionState.FAILED, OutcomeClass.TIMEOUT, Cause.SILENCE)
        check_unknown(row)
    check_followed(row)
    assert "8 seconds" in row.sentence and len(model.requests) == 1


def check_unknown(row: Execution) -> None:
    """It spent, nobody told how much, and so what was held for it stays held."""
    assert (row.spend_stage, row.cost_nano_usd, row.cost_basis) == (SpendStage.UNKNOWN, None, "unknown")
    assert Reservation.objects.get(pk=row.reservation_id).state == "uncertain"


@pytest.mark.parametrize(("provider", "events"), [("codex", 9), ("codex", 0), ("claude", 0)])
def test_a_message_that_was_never_counted_has_an_unknown_cost_also_before_its_first_word(
    ask: Ask, model: ModelEmulator, settings: Any, provider: str, events: int
) -> None:
    """Codex counts a message when it is whole; Claude tells with its beginning what was read for it."""
    settings.FLEET_STALL_SECONDS = 8
    model.hold("hello", "Once upon a time there was a bot, and it had time. " * 4, after_events=events)
    row = ask(provider)
    assert (row.outcome, row.cause, bool(row.answer)) == (OutcomeClass.TIMEOUT, Cause.SILENCE, events > 0)
    assert len(model.requests) == 1
    check_unknown(row)


@BOTH
def test_a_turn_that_a_person_stops_while_the_model_still_thinks_has_an_unknown_cost(
    ask: Ask, model: ModelEmulator, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.hold("hello", "Once upon a time.")
    stop = Halt(OutcomeClass.STOPPED, "Stopped: enough.")
    monkeypatch.setattr(Limits, "reached", lambda _: stop if model.requests else None)
    row = ask(provider)
    assert (row.state, row.outcome, row.answer) == (ExecutionState.STOPPED, OutcomeClass.STOPPED, "")
    assert len(model.requests) == 1
    check_unknown(row)


class TestCutOffAfterItsFirstCountedMessage:
    """Codex: what the model was asked for, was paid for, whether its answer came to be counted or not."""

    @pytest.fixture(autouse=True)
    def counted(self, model: ModelEmulator) -> None:
        """The first message runs a command, and is counted."""
        model.call_tool("hello", "exec_command", {"cmd": "true"}, then="Done.")

    def check(self, row: Execution, stage: SpendStage, basis: str, reservation: str) -> None:
        posted = sum(line.cost_nano_usd for line in TokenLedger.objects.filter(execution_id=row.pk))
        assert (row.spend_stage, row.cost_basis, row.cost_nano_usd) == (stage, basis, posted)
        assert posted > 0 and row.output == Usage().output
        assert Reservation.objects.get(pk=row.reservation_id).state == reservation

    @pytest.mark.parametrize("words", [0, 9])
    def test_it_cost_at_least_what_was_counted_and_what_is_held_stays_held(
        self, ask: Ask, model: ModelEmulator, settings: Any, words: int
    ) -> None:
        settings.FLEET_STALL_SECONDS = 4
        model.hold(_has_run, "Once upon a time there was a bot, and it had time. " * 4, after_events=words)
        row = ask("codex", tools=["Bash"])
        assert (row.outcome, row.cause, bool(row.answer)) == (OutcomeClass.TIMEOUT, Cause.SILENCE, words > 0)
        assert len(model.requests) == 2
        self.check(row, SpendStage.UNKNOWN, "at_least", "uncertain")

    def test_what_the_api_refused_is_not_paid_for(self, ask: Ask, model: ModelEmulator) -> None:
        model.fail(_has_run, 401)
        row = ask("codex", tools=["Bash"])
        assert (row.outcome, row.cause) == (OutcomeClass.AUTH, Cause.AUTH)
        self.check(row, SpendStage.SETTLED, "priced", "settled")

    def test_an_answer_is_known_to_the_last_token(self, ask: Ask, model: ModelEmulator) -> None:
        row = ask("codex", tools=["Bash"])
        assert (row.state, row.answer, row.output) == (ExecutionState.SUCCEEDED, "Done.", 2 * Usage().output)
        assert (row.spend_stage, row.cost_basis) == (SpendStage.SETTLED, "priced")


@pytest.mark.parametrize(("words", "booked"), [(0, ("unknown", "at_least")), (9, ("settled", "priced"))])
def test_what_claude_was_asked_for_after_its_tools_is_missing_until_its_answer_begins(
    ask: Ask, model: ModelEmulator, settings: Any, words: int, booked: tuple[str, str]
) -> None:
    settings.FLEET_STALL_SECONDS = 6
    model.call_tool("hello", "Bash", {"command": "true"}, then="Done.")
    model.hold(_has_run, "Once upon a time there was a bot, and it had time. " * 4, after_events=words)
    row = ask("claude", tools=["Bash"])
    assert (row.outcome, row.cause, bool(row.answer)) == (OutcomeClass.TIMEOUT, Cause.SILENCE, words > 0)
    assert (row.spend_stage, row.cost_basis) == booked
    posted = sum(line.cost_nano_usd for line in TokenLedger.objects.filter(execution_id=row.pk))
    assert row.cost_nano_usd == posted > 0 and len(model.requests) == 2
    assert Reservation.objects.get(pk=row.reservation_id).state == ("settled" if words else "uncertain")


def _has_run(request: ModelRequest) -> bool:
    return bool(request.tool_results)


@BOTH
def test_an_answer_without_usage_has_an_unknown_cost(ask: Ask, model: ModelEmulator, provider: str) -> None:
    whole = _uncounted_message() if provider == "claude" else _uncounted_response()
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in whole)
    model.garbage("hello", body=body.encode(), content_type="text/event-stream")
    row = ask(provider)
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Hi.")
    check_unknown(row)


def _uncounted_message() -> list[dict[str, Any]]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}},
        {"type": "message_stop"},
    ]


def _uncounted_response() -> list[dict[str, Any]]:
    response = {"id": "resp_1", "object": "response", "model": "m"}
    content = [{"type": "output_text", "text": "Hi.", "annotations": []}]
    item = {"type": "message", "id": "item_1", "role": "assistant", "status": "completed", "content": content}
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**response, "status": "completed", "output": [item]}},
    ]


@pytest.mark.django_db(transaction=True)  # tool calls are judged in another thread, which has to see the grants
class TestALimitOfTheBot:
    def test_a_command_that_takes_all_the_memory_is_ended(self, ask: Ask, model: ModelEmulator) -> None:
        greedy = "python3 -c 'held = \"x\" * 600_000_000; import time; time.sleep(100)'"
        model.call_tool("hello", "Bash", {"command": greedy, "description": "x"}, then="Done.")
        row = ask("claude", tools=["Bash"], max_megabytes=700)
        check(row, OutcomeClass.LIMIT, Cause.MEMORY)
        assert "700 MB of memory" in row.sentence
        assert not Breaker.objects.exists()

    def test_a_model_that_goes_round_is_ended(self, ask: Ask, model: ModelEmulator, settings: Any) -> None:
        settings.FLEET_REPEATED_CALLS = 3
        # The third one lasts, so that the model is not asked again before it is ended: that would be paid for as well.
        third_lasts = "echo x >> calls; [ $(wc -l < calls) -lt 3 ] || sleep 60"
        command = {"command": third_lasts, "description": "x"}
        model.call_tool(lambda request: True, "Bash", command, then="Done.", times=None)
        row = ask("claude", tools=["Bash"])
        check(row, OutcomeClass.LIMIT, Cause.LOOP)
        assert row.events.filter(kind="tool_denied").count() == 0
        assert row.tool_calls == 3 and "the same call of Bash 3 times in a row" in row.sentence
