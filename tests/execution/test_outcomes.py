"""From what a provider reports to a cause, a class and a sentence: one table, typed evidence, and what follows by itself."""

from __future__ import annotations

import datetime as dt

import pytest

from execution import outcomes
from execution.outcomes import NOTHING, POLICIES, TABLE, Evidence, Vendor, judge, policy_of
from execution.providers.claude.translate import VENDOR as CLAUDE
from execution.providers.codex.translate import VENDOR as OPENAI
from execution.states import Cause
from execution.states import OutcomeClass as Class

LATER = dt.datetime(2030, 1, 1, 15, tzinfo=dt.UTC)
ANYBODY = Vendor(name="Acme", account="The Acme account", key="Ask Acme.")

CASES = [
    # what the Claude CLI says: the error of its message, the reason it stopped, the subtype of its result
    (("authentication_failed", "api_error", "success"), 401, Class.AUTH, Cause.AUTH),
    (("authentication_failed", "api_error", "success"), 403, Class.AUTH, Cause.AUTH),
    (("billing_error", "api_error", "success"), 400, Class.LIMIT, Cause.BILLING),
    (("rate_limit", "api_error", "success"), 429, Class.LIMIT, Cause.RATE_LIMIT),
    (("server_error", "api_error", "success"), 529, Class.OVERLOAD, Cause.OVERLOADED),
    (("server_error", "api_error", "success"), 500, Class.OVERLOAD, Cause.SERVER_FAULT),
    (("invalid_request", "prompt_too_long", "success"), 400, Class.CONTEXT_FULL, Cause.TOO_LONG),
    (("api_error", "success"), 413, Class.CONTEXT_FULL, Cause.TOO_LONG),
    (("model_not_found", "api_error", "success"), 404, Class.ERROR, Cause.MODEL),
    (("invalid_request", "api_error", "success"), 400, Class.ERROR, Cause.MALFORMED),
    (("max_turns", "error_max_turns"), 0, Class.LIMIT, Cause.STEPS),
    (("error_max_budget_usd",), 0, Class.BUDGET, Cause.RUN_BUDGET),
    (("aborted_streaming", "error_during_execution"), 0, Class.STOPPED, Cause.INTERRUPTED),
    (("aborted_tools", "error_during_execution"), 0, Class.STOPPED, Cause.INTERRUPTED),
    (("api_error", "success"), 0, Class.ERROR, Cause.UNREACHABLE),
    (("no_answer", "api_error", "success"), 0, Class.ERROR, Cause.UNREACHABLE),
    (("from_the_future",), 0, Class.ERROR, Cause.UNKNOWN),
    # what Codex says: the turn's status, the name of its error, the API's code
    (("interrupted",), 0, Class.STOPPED, Cause.INTERRUPTED),
    (("too_many_steps", "interrupted"), 0, Class.LIMIT, Cause.STEPS),
    (("failed", "contextWindowExceeded"), 0, Class.CONTEXT_FULL, Cause.TOO_LONG),
    (("failed", "other", "context_length_exceeded"), 0, Class.CONTEXT_FULL, Cause.TOO_LONG),
    (("failed", "httpConnectionFailed"), 413, Class.CONTEXT_FULL, Cause.TOO_LONG),
    (("failed", "usageLimitExceeded"), 0, Class.LIMIT, Cause.USAGE_LIMIT),
    (("failed", "other", "insufficient_quota"), 0, Class.LIMIT, Cause.BILLING),
    (("failed", "rateLimitExceeded"), 0, Class.LIMIT, Cause.RATE_LIMIT),
    (("failed", "responseTooManyFailedAttempts"), 429, Class.LIMIT, Cause.RATE_LIMIT),
    (("failed", "responseTooManyFailedAttempts"), 503, Class.OVERLOAD, Cause.OVERLOADED),
    (("failed", "responseTooManyFailedAttempts"), 520, Class.OVERLOAD, Cause.SERVER_FAULT),
    (("failed", "responseTooManyFailedAttempts"), 0, Class.ERROR, Cause.UNREACHABLE),
    (("failed", "unauthorized"), 0, Class.AUTH, Cause.AUTH),
    (("failed", "httpConnectionFailed"), 401, Class.AUTH, Cause.AUTH),
    (("failed", "httpConnectionFailed"), 404, Class.ERROR, Cause.MODEL),
    (("failed", "serverOverloaded"), 0, Class.OVERLOAD, Cause.OVERLOADED),
    (("failed", "internalServerError"), 0, Class.OVERLOAD, Cause.SERVER_FAULT),
    (("failed", "httpConnectionFailed"), 0, Class.ERROR, Cause.UNREACHABLE),
    (("failed", "fromTheFuture"), 0, Class.ERROR, Cause.UNKNOWN),
    # what the proxy of the bot's sandbox saw, whatever the CLI made of it
    ((outcomes.UNREACHED, "server_error", "api_error", "success"), 502, Class.ERROR, Cause.NETWORK),
    ((outcomes.UNREACHED, "no_answer", "api_error", "success"), 0, Class.ERROR, Cause.NETWORK),
    ((outcomes.UNREACHED, "failed", "httpConnectionFailed"), 502, Class.ERROR, Cause.NETWORK),
    ((outcomes.UNREACHED, "interrupted"), 0, Class.STOPPED, Cause.INTERRUPTED),
    ((outcomes.REFUSED, "authentication_failed", "api_error", "success"), 403, Class.ERROR, Cause.POLICY),
    # what anybody may say
    ((), 402, Class.LIMIT, Cause.BILLING),
    ((), 503, Class.OVERLOAD, Cause.OVERLOADED),
    ((), 522, Class.OVERLOAD, Cause.SERVER_FAULT),
    ((), 0, Class.ERROR, Cause.UNKNOWN),
]


@pytest.mark.parametrize(("words", "status", "outcome", "cause"), CASES)
def test_every_kind_of_end_has_its_class_and_cause(words, status, outcome: Class, cause: Cause) -> None:
    ruling = judge(Evidence(words, status), ANYBODY)
    assert (ruling.outcome, ruling.cause) == (outcome, cause)


def test_a_login_whose_window_is_used_up_is_told_from_one_that_goes_too_fast() -> None:
    used_up = judge(Evidence(("rate_limit",), 429, limited=True, retry_at=LATER), CLAUDE)
    too_fast = judge(Evidence(("rate_limit",), 429), CLAUDE)
    assert (used_up.cause, used_up.retry_at, too_fast.cause) == (Cause.USAGE_LIMIT, LATER, Cause.RATE_LIMIT)
    assert "starts anew" in used_up.sentence and "in a minute" in too_fast.sentence


def test_a_moment_is_kept_only_where_waiting_for_it_helps() -> None:
    assert judge(Evidence(("invalid_request",), retry_at=LATER), CLAUDE).retry_at is None


@pytest.mark.parametrize("vendor", [CLAUDE, OPENAI, ANYBODY])
def test_every_sentence_is_one_for_a_person_and_names_the_vendor_right(vendor: Vendor) -> None:
    for row in TABLE:
        words, status = row.words[:1], 0 if row.words else next(iter(row.statuses), 0)
        sentence = judge(Evidence(words, status, limited=row.limited), vendor).sentence
        assert sentence[0].isupper() and sentence.endswith("."), row
        assert "{" not in sentence and "Exceeded" not in sentence, row


def test_a_refused_key_says_which_setting_holds_it() -> None:
    assert "ANTHROPIC_API_KEY" in judge(Evidence(status=401), CLAUDE).sentence
    assert "OPENAI_API_KEY" in judge(Evidence(status=401), OPENAI).sentence


def test_every_row_can_be_reached() -> None:
    for row in TABLE:
        asked = [Evidence((word,)) for word in row.words] + [Evidence(status=status) for status in row.statuses]
        for evidence in asked or [Evidence(limited=row.limited)]:
            assert next(one for one in TABLE if one.fits(evidence)) is row


def test_only_what_is_the_logins_or_the_vendors_trouble_is_followed_by_anything() -> None:
    troubles = {Cause.USAGE_LIMIT, Cause.RATE_LIMIT, Cause.BILLING, Cause.AUTH}
    passing = {Cause.OVERLOADED, Cause.SERVER_FAULT, Cause.UNREACHABLE, Cause.NETWORK}
    assert set(POLICIES) == troubles | passing | {Cause.POLICY, Cause.HOLD_ENDED}
    assert [cause for cause, policy in POLICIES.items() if policy.begins_anew] == [Cause.HOLD_ENDED]
    assert not POLICIES[Cause.HOLD_ENDED].fails_over, "it asked its provider nothing"
    assert POLICIES[Cause.POLICY] == outcomes.Policy(fails_over=True), (
        "it is the bot's trouble, for which no login is shut"
    )
    assert {cause for cause, policy in POLICIES.items() if policy.opens_after == 1} == troubles
    assert all(policy_of(cause) == NOTHING for cause in Cause if cause not in POLICIES)
    assert policy_of("") == NOTHING


@pytest.mark.parametrize("policy", [policy for policy in POLICIES.values() if policy.opens_after])
def test_a_pause_doubles_and_stays_within_its_bound(policy: outcomes.Policy) -> None:
    pauses = [policy.pause_after(failures) for failures in range(policy.opens_after, policy.opens_after + 40)]
    assert pauses[0] == policy.pause and pauses[1] == policy.pause * 2
    assert pauses == sorted(pauses) and pauses[-1] == policy.longest_pause
