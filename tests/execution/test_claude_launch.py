"""What the CLI is started with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from execution.ports import NotPrepared, Prompt
from execution.providers.claude import launch
from execution.providers.claude.launch import Launch
from execution.providers.claude.session import ClaudeRun
from execution.shim.handle import Nursery


@pytest.fixture
def prompt(tmp_path: Path) -> Prompt:
    return Prompt(
        system_prompt="You are Ada.",
        model="claude-haiku-4-5",
        workspace=tmp_path,
        home=tmp_path / "home",
        session_id="7d1b8f0e-0000-4000-8000-000000000000",
        session_turns=0,
    )


@pytest.fixture
def plan(prompt: Prompt) -> Iterator[Launch]:
    plan = launch.prepare(prompt)
    yield plan
    shutil.rmtree(plan.scratch)


def test_an_answer_that_was_cut_off_is_not_paid_for_twice(plan: Launch) -> None:
    assert plan.environment["CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK"] == "1"


def test_the_prompt_is_the_same_bytes_for_every_first_message(plan: Launch) -> None:
    assert plan.environment["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"


@pytest.mark.parametrize(
    ("base_url", "environment", "believes"),
    [
        ("", {}, "bundled"),
        ("http://127.0.0.1:9", {}, "bundled"),
        ("https://gateway.example", {}, None),
        ("", {"NODE_EXTRA_CA_CERTS": "/etc/ssl/own.pem"}, None),
        ("", {"HTTPS_PROXY": "http://proxy.example:3128"}, None),
        ("", {"CLAUDE_CODE_CERT_STORE": "bundled,system"}, "bundled,system"),
    ],
)
def test_the_machines_certificates_are_read_where_they_may_matter(
    prompt: Prompt, settings, base_url: str, environment: dict[str, str], believes: str | None
) -> None:
    settings.ANTHROPIC_BASE_URL, settings.FLEET_CLI_ENVIRONMENT = base_url, environment
    plan = launch.prepare(prompt)
    shutil.rmtree(plan.scratch)
    assert plan.environment.get("CLAUDE_CODE_CERT_STORE") == believes


def test_a_resumed_session_gets_the_present_wording(plan: Launch) -> None:
    assert plan.argv[plan.argv.index("--system-prompt-snapshot") + 1] == "off"


@pytest.mark.parametrize("credential", ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"])
def test_the_key_or_token_is_no_variable_and_no_argument(prompt: Prompt, settings, credential: str) -> None:
    setattr(settings, credential, "sk-ant-canary")
    plan = launch.prepare(prompt)
    shutil.rmtree(plan.scratch)
    assert "sk-ant-canary" in plan.secrets.values()
    assert "sk-ant-canary" not in str(plan.environment) + str(plan.argv) + repr(plan)


def test_where_there_are_a_key_and_a_token_the_cli_gets_the_key_alone(prompt: Prompt, settings) -> None:
    settings.ANTHROPIC_API_KEY, settings.CLAUDE_CODE_OAUTH_TOKEN = "sk-ant-canary", "sk-ant-oat01-canary"
    plan = launch.prepare(prompt)
    shutil.rmtree(plan.scratch)
    assert plan.secrets == {"CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": "sk-ant-canary"}


def test_a_login_in_a_directory_reaches_no_cli(prompt: Prompt, settings, tmp_path: Path) -> None:
    settings.FLEET_CLAUDE_LOGIN_DIR = str(tmp_path / "shared-login")
    plan = launch.prepare(prompt)
    shutil.rmtree(plan.scratch)
    assert "shared-login" not in f"{plan.argv} {plan.environment}"
    assert plan.environment["CLAUDE_CONFIG_DIR"] == str(prompt.home / ".claude")


def test_sockets_fit_below_the_scratch_directory(plan: Launch) -> None:
    assert plan.environment["CLAUDE_CODE_TMPDIR"] == str(plan.scratch)
    assert len(f"{plan.scratch}/cc-socks/4194304.sock") <= 107
    assert plan.scratch.stat().st_mode & 0o777 == 0o700


def test_a_run_leaves_nothing_in_the_temporary_directory(prompt: Prompt, tmp_path: Path, settings, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings.FLEET_CLAUDE_CLI = "/bin/true"
    run = ClaudeRun.open(prompt, nursery=Nursery())
    with pytest.raises(NotPrepared):
        run.prepare()
    run.close()
    assert not list(tmp_path.glob("fleet-*"))


class TestItsVersion:
    """A CLI is asked for it before it gets a prompt."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "claude"

    def write(self, path: Path, said: str) -> None:
        """Exchange the CLI for one that notes that it was asked, and does this."""
        new = path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\necho asked >>{path.parent}/asked\n{said}\n")
        new.chmod(0o755)
        new.replace(path)

    def asked(self, path: Path) -> int:
        return len((path.parent / "asked").read_text().splitlines())

    def test_one_that_could_not_say_it_is_asked_again(self, path: Path, monkeypatch) -> None:
        monkeypatch.setattr(launch, "VERSION_SECONDS", 0.5)
        slow = path.parent / "slow"
        slow.touch()
        self.write(path, f"[ ! -e {slow} ] || exec sleep 5; echo '2.1.250 (Claude Code)'")
        assert launch.cli_version(path) == ()
        slow.unlink()
        monkeypatch.undo()
        assert launch.cli_version(path) == (2, 1, 250)

    def test_one_that_said_it_is_not_asked_again_until_it_is_exchanged(self, path: Path) -> None:
        self.write(path, "echo 2.1.250")
        assert [launch.cli_version(path) for _ in range(3)] == [(2, 1, 250)] * 3
        assert self.asked(path) == 1
        self.write(path, "echo 2.1.251")
        assert launch.cli_version(path) == (2, 1, 251)

    @pytest.mark.parametrize("said", ["exit 1", "echo hello", "echo 2.1"])
    def test_what_is_no_version_is_none(self, path: Path, said: str) -> None:
        self.write(path, said)
        assert launch.cli_version(path) == ()
        assert launch.cli_version(path.with_name("absent")) == ()

    @pytest.mark.parametrize(
        ("said", "what"), [("echo 2.1.247", "is older than 2.1.248"), ("exit 1", "did not say its version")]
    )
    def test_the_person_hears_why_it_is_not_used(
        self, path: Path, prompt: Prompt, settings, said: str, what: str
    ) -> None:
        self.write(path, said)
        settings.FLEET_CLAUDE_CLI = str(path)
        with pytest.raises(NotPrepared) as refused:
            ClaudeRun.open(prompt, nursery=Nursery()).prepare()
        assert what in refused.value.finished.sentence
