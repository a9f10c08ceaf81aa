"""From what the CLI reports to an outcome class: one table, typed evidence."""

import pytest

from execution.providers.claude.outcomes import TABLE, Evidence, judge
from execution.states import OutcomeClass as Class

CASES = [
    (Evidence(error="authentication_failed", status=401, reason="api_error", subtype="success"), Class.AUTH),
    (Evidence(error="authentication_failed", status=403, reason="api_error", subtype="success"), Class.AUTH),
    (Evidence(error="billing_error", status=400, reason="api_error", subtype="success"), Class.LIMIT),
    (Evidence(error="rate_limit", status=429, reason="api_error", subtype="success"), Class.LIMIT),
    (Evidence(error="rate_limit", status=429, reason="api_error", limited=True), Class.LIMIT),
    (Evidence(error="server_error", status=529, reason="api_error", subtype="success"), Class.OVERLOAD),
    (Evidence(error="server_error", status=500, reason="api_error", subtype="success"), Class.OVERLOAD),
    (Evidence(error="invalid_request", status=400, reason="prompt_too_long", subtype="success"), Class.CONTEXT_FULL),
    (Evidence(status=413, reason="api_error", subtype="success"), Class.CONTEXT_FULL),
    (Evidence(error="model_not_found", status=404, reason="api_error", subtype="success"), Class.ERROR),
    (Evidence(error="invalid_request", status=400, reason="api_error", subtype="success"), Class.ERROR),
    (Evidence(reason="max_turns", subtype="error_max_turns"), Class.LIMIT),
    (Evidence(subtype="error_max_budget_usd"), Class.BUDGET),
    (Evidence(reason="aborted_streaming", subtype="error_during_execution"), Class.STOPPED),
    (Evidence(reason="aborted_tools", subtype="error_during_execution"), Class.STOPPED),
    (Evidence(reason="api_error", subtype="success"), Class.ERROR),
    (Evidence(subtype="from_the_future"), Class.ERROR),
    (Evidence(), Class.ERROR),
]


@pytest.mark.parametrize(("evidence", "outcome"), CASES)
def test_every_kind_of_end_has_its_class(evidence: Evidence, outcome: Class) -> None:
    assert judge(evidence).outcome == outcome


def test_a_limit_of_the_account_says_to_wait_for_its_reset() -> None:
    assert "starts anew" in judge(Evidence(error="rate_limit", status=429, limited=True)).sentence
    assert "in a minute" in judge(Evidence(error="rate_limit", status=429)).sentence


def test_every_sentence_is_one_for_a_person() -> None:
    for row in TABLE:
        assert row.sentence[0].isupper() and row.sentence.endswith("."), row
