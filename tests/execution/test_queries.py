"""Who answers for a bot, and what the console says about it."""

from pathlib import Path

import pytest

from budgets.states import Billing
from execution import queries
from execution.providers import registry
from fleet.kernel.exceptions import NotFound
from tests.factories import execution as made

KEY = "sk-ant-canary-not-a-key"


def test_without_a_credential_the_mock_answers_and_says_how_to_switch() -> None:
    assert queries.provider_for(made.BotFactory()) == ("mock", "mock-1")
    mode = queries.execution_mode()
    assert mode.mode == "mock"
    assert "ANTHROPIC_API_KEY" in mode.sentence


def test_with_a_key_claude_answers_with_the_bots_model(settings) -> None:
    settings.ANTHROPIC_API_KEY = KEY
    assert queries.provider_for(made.BotFactory(model="claude-haiku-4-5")) == ("claude", "claude-haiku-4-5")
    assert queries.execution_mode() == queries.ExecutionMode("claude", "")


def test_what_the_bots_use_decides_and_not_what_claude_says(settings) -> None:
    settings.OPENAI_API_KEY = "sk-canary-not-a-key"
    made.BotFactory(provider_chain=["codex"])
    assert queries.execution_mode() == queries.ExecutionMode("codex", "")
    made.BotFactory(provider_chain=["claude"])
    assert "ANTHROPIC_API_KEY" in queries.execution_mode().sentence


def test_a_subscriptions_token_is_as_good_as_a_key_and_another_login(settings) -> None:
    settings.CLAUDE_CODE_OAUTH_TOKEN = "sk-ant-oat01-canary"
    assert queries.execution_mode() == queries.ExecutionMode("claude", "")
    claude = registry.get("claude")
    by_token = claude.login()
    assert claude.billing() == Billing.SUBSCRIPTION
    settings.ANTHROPIC_API_KEY = KEY
    assert claude.billing() == Billing.API, "with both, it is the key that is used"
    assert len({by_token, claude.login(), ""}) == 3


def test_a_login_that_all_bots_share_is_refused_and_a_way_out_is_named(settings, tmp_path: Path) -> None:
    settings.FLEET_CLAUDE_LOGIN_DIR = str(tmp_path)
    mode = queries.execution_mode()
    assert (mode.mode, "FLEET_CLAUDE_LOGIN_DIR" in mode.sentence) == ("mock", True)
    assert "`claude setup-token`" in mode.sentence and "CLAUDE_CODE_OAUTH_TOKEN" in mode.sentence
    settings.CLAUDE_CODE_OAUTH_TOKEN = "sk-ant-oat01-canary"
    assert queries.execution_mode() == queries.ExecutionMode("claude", "")


def test_a_cli_that_is_not_there_is_named(settings) -> None:
    settings.ANTHROPIC_API_KEY = KEY
    settings.FLEET_CLAUDE_CLI = "/no/such/claude"
    mode = queries.execution_mode()
    assert (mode.mode, "/no/such/claude" in mode.sentence) == ("mock", True)


def test_a_bot_may_be_told_to_use_the_mock(settings) -> None:
    settings.ANTHROPIC_API_KEY = KEY
    assert queries.provider_for(made.BotFactory(provider_chain=["mock"])) == ("mock", "mock-1")


def test_a_provider_nobody_knows_is_passed_over(settings) -> None:
    settings.ANTHROPIC_API_KEY = KEY
    assert queries.provider_for(made.BotFactory(provider_chain=["acme", "claude"]))[0] == "claude"
    with pytest.raises(NotFound, match="Known are: claude, codex, mock"):
        registry.get("acme")
