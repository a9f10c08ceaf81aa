"""How the Codex CLI is started, and when it can be."""

from __future__ import annotations

import tomllib
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from execution import queries
from execution.ports import Prompt
from execution.providers import registry
from execution.providers.codex import launch
from execution.providers.codex.provider import CodexProvider
from execution.providers.codex.threads import Thread, Threads
from tests.factories import execution as made


@pytest.fixture
def prompt(tmp_path: Path) -> Prompt:
    work = tmp_path / 'a.b "c" ü'
    work.mkdir()
    return Prompt("You are Ada.", "gpt-5.6-luna", work, tmp_path / "home", str(uuid.uuid4()), 0, tools=("Bash",))


@pytest.fixture(autouse=True)
def scratch_goes_with_the_test(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def settings_of(prompt: Prompt) -> dict[str, object]:
    argv = launch.prepare(prompt).argv
    argv = argv[argv.index(str(launch.cli_path().resolve())) :]
    return tomllib.loads("\n".join(argv[index + 1] for index, word in enumerate(argv) if word == "-c"))


def test_the_workspace_is_not_trusted_whatever_its_name_is(prompt: Prompt) -> None:
    assert settings_of(prompt)["projects"] == {str(prompt.workspace): {"trust_level": "untrusted"}}


def test_without_a_grant_for_it_there_is_no_shell(prompt: Prompt) -> None:
    assert settings_of(prompt)["features"]["shell_tool"] is True
    assert settings_of(replace(prompt, tools=("WebFetch",)))["features"]["shell_tool"] is False


def test_the_environment_is_a_list_of_ours_without_the_key(prompt: Prompt, settings, monkeypatch) -> None:
    settings.OPENAI_API_KEY = "sk-canary"
    settings.FLEET_CLI_ENVIRONMENT = {"PATH": "/bin", "TMPDIR": "/elsewhere"}
    plan = launch.prepare(prompt)
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}
    assert plan.environment.keys() == {"PATH", "LANG", "HOME", "PWD", "CODEX_HOME", "TMPDIR", *proxies}
    assert plan.environment["TMPDIR"].startswith(str(prompt.home))
    assert "canary" not in str(plan)


def test_the_same_bot_is_started_the_same_way(prompt: Prompt) -> None:
    plans = [replace(launch.prepare(prompt), scratch=prompt.home) for _ in range(2)]
    assert plans[0] == plans[1]


def test_a_link_in_the_place_of_what_was_said_is_removed_and_not_followed(prompt: Prompt, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    launch.prepare(prompt)
    sessions = prompt.home / ".codex" / "sessions"
    sessions.rmdir()
    sessions.symlink_to(tmp_path / "precious")
    launch.prepare(prompt)
    assert not sessions.is_symlink() and (tmp_path / "precious").is_dir()


def test_without_walls_each_process_has_a_home_of_its_own_and_finds_what_was_said(prompt: Prompt) -> None:
    bare = replace(prompt, confinement=replace(prompt.confinement, waived=True))
    one, another = launch.prepare(bare), launch.prepare(bare)
    homes = [Path(plan.environment["CODEX_HOME"]) for plan in (one, another)]
    assert homes[0] != homes[1] and homes[0].is_relative_to(one.scratch)
    (prompt.home / ".codex" / "config.toml").touch()
    (prompt.home / ".codex" / "sessions" / "said").touch()
    assert [path.name for path in homes[0].rglob("*")] == ["sessions"] and (homes[0] / "sessions" / "said").exists()


def test_a_thread_is_found_while_its_transcript_is_there(tmp_path: Path) -> None:
    threads = Threads(tmp_path)
    threads.keep("s", Thread("th", {"input": 5}))
    assert threads.find("s") is None
    (tmp_path / "sessions" / "2026").mkdir(parents=True)
    (tmp_path / "sessions" / "2026" / "rollout-x-th.jsonl").touch()
    assert threads.find("s") == Thread("th", {"input": 5})
    (tmp_path / "fleet-threads" / "s.json").write_text("{")
    assert threads.find("s") is None


def test_says_what_is_missing(settings) -> None:
    assert "OPENAI_API_KEY" in CodexProvider().check()
    settings.OPENAI_API_KEY = "sk-x"
    assert CodexProvider().check() == ""
    settings.FLEET_CODEX_CLI = "/nowhere/codex"
    assert "/nowhere/codex" in CodexProvider().check()


@pytest.mark.parametrize(
    ("wanted", "model"),
    [("claude-haiku-4-5", "gpt-5.6-luna"), ("gpt-5.5", "gpt-5.5"), ("o3", "o3"), ("opus", "gpt-5.6-luna")],
)
def test_a_bot_keeps_a_model_that_is_openais_own(settings, wanted: str, model: str) -> None:
    settings.FLEET_CODEX_MODEL = "gpt-5.6-luna"
    assert CodexProvider().capabilities.model_for(wanted) == model


@pytest.mark.django_db
def test_the_chain_goes_on_to_codex_when_claude_cannot_be_used(settings) -> None:
    settings.OPENAI_API_KEY = "sk-x"
    registry.kept.cache_clear()
    bot = made.BotFactory(provider_chain=["claude", "codex"])
    assert queries.provider_for(bot) == ("codex", settings.FLEET_CODEX_MODEL)
    settings.ANTHROPIC_API_KEY = "sk-ant-x"
    assert queries.provider_for(bot) == ("claude", bot.model)
