"""Who answers for a bot, and what the console says about it."""

from pathlib import Path

import pytest

from budgets.states import Billing
from execution import queries
from execution.engine import workspace
from execution.ports import Finished, UserText
from execution.providers import registry
from execution.providers.mock import reason, script
from fleet.kernel.exceptions import NotFound
from identities import queries as identity_queries
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


def test_a_provider_is_made_once_and_forgotten_with_its_name(settings) -> None:
    named = settings.FLEET_PROVIDERS
    settings.FLEET_PROVIDERS = {**named, "acme": named["mock"]}
    assert registry.get("acme") is registry.get("acme")
    settings.FLEET_PROVIDERS = {**named, "acme": named["claude"]}
    assert registry.get("acme").capabilities.name == "claude"
    settings.FLEET_PROVIDERS = named
    with pytest.raises(NotFound):
        registry.get("acme")


class TestTheMockSaysWhyItAnswers:
    """What it says is true for each way in which a bot gets it."""

    def test_it_stands_in_for_providers_that_lack_something_and_says_what(self) -> None:
        said = reason.why(["claude", "codex"])
        assert said == (
            "I stand in, as none of this bot's providers can be used here."
            " To talk to Claude, set ANTHROPIC_API_KEY in .env, or CLAUDE_CODE_OAUTH_TOKEN for a subscription, and restart."
        )

    def test_it_names_what_the_bots_own_provider_lacks_and_no_other_key(self, settings) -> None:
        settings.ANTHROPIC_API_KEY = KEY
        assert "OPENAI_API_KEY" in reason.why(["codex"])
        assert "ANTHROPIC_API_KEY" not in reason.why(["codex"])

    def test_a_provider_that_was_taken_away_is_named_and_no_key_asked_for(self, settings) -> None:
        settings.ANTHROPIC_API_KEY = KEY
        assert "There is no provider called acme here." in reason.why(["acme"])
        assert "API_KEY" not in reason.why(["acme"])

    def test_chosen_while_a_key_is_set_it_names_who_could_answer_instead(self, settings) -> None:
        settings.ANTHROPIC_API_KEY = KEY
        said = reason.why(["mock", "claude"])
        assert said.startswith("This bot's settings name me as its first provider.")
        assert "once an administrator names claude before me" in said
        assert "API_KEY" not in said

    def test_chosen_without_any_key_it_says_both_what_to_set_and_what_to_choose(self) -> None:
        said = reason.why(["mock"])
        assert "names claude before me" in said
        assert "ANTHROPIC_API_KEY" in said

    def test_next_in_a_chain_it_says_what_those_before_it_lack(self, settings) -> None:
        settings.OPENAI_API_KEY = "sk-canary-not-a-key"
        said = reason.why(["claude", "mock"])
        assert said.startswith("I am the next in this bot's chain, as claude cannot be used here.")
        assert "ANTHROPIC_API_KEY" in said

    def test_next_to_a_login_that_is_left_alone_it_asks_for_no_key(self, settings) -> None:
        settings.ANTHROPIC_API_KEY = KEY
        said = reason.why(["claude", "mock"])
        assert "while claude cannot answer; the page Logins says why" in said
        assert "API_KEY" not in said

    @pytest.mark.parametrize("chain", [["claude"], ["mock"], ["claude", "mock"]])
    def test_its_answer_ends_with_it(self, chain: list[str]) -> None:
        bot = made.BotFactory(provider_chain=chain)
        texts = identity_queries.compiled(bot)
        prompt = workspace.prompt_of(bot, texts, model=script.MODEL, session_id="s", session_turns=0)
        steps = script.play(
            prompt, (UserText("u", "Hello"),), lambda call: None, heard=lambda: (UserText("u", "Hello"),)
        )
        (end,) = [event for _, event in steps if isinstance(event, Finished)]
        assert end.text.endswith(reason.why(chain))


def test_the_banner_of_a_provider_that_was_taken_away_says_so(settings) -> None:
    settings.ANTHROPIC_API_KEY = KEY
    made.BotFactory(provider_chain=["acme"])
    assert "There is no provider called acme here." in queries.execution_mode().sentence
