"""From a bot's row to the walls of its process, and what is told about walls that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from execution import sandbox
from execution.engine import Supervisor, workspace
from execution.models import Worker
from execution.ports import Confinement, Prompt
from execution.sandbox import presence
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet import observations
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry
from identities import actions as identity_actions
from identities.models import Identity
from identities.states import NetworkPolicy
from tests.execution.running import Run
from tests.factories import execution as made

pytestmark = pytest.mark.django_db(transaction=True)
BY = Actor.system("test")
WHY = "The sandbox for bots is missing."


@pytest.fixture
def ada() -> Identity:
    return made.BotFactory(slug="ada")


def prompt_of(bot: Identity) -> Prompt:
    bot.refresh_from_db()
    return workspace.prompt_of(bot, workspace.last_known(bot), model="m", session_id="s", session_turns=0)


def test_a_bots_row_becomes_its_walls(ada: Identity) -> None:
    identity_actions.update_identity(
        identity=ada, network=NetworkPolicy.ALLOWLIST, allowed_hosts=["b.example", "a.example"], by=BY
    )
    identity_actions.connect_server(identity=ada, name="wiki", transport="http", url="https://Wiki.example/mcp", by=BY)
    walls = prompt_of(ada).confinement
    assert walls == Confinement("ada", "allowlist", ("a.example", "b.example"), ("wiki.example",), False)


@pytest.mark.parametrize(
    "change",
    [
        lambda bot: identity_actions.update_identity(identity=bot, network=NetworkPolicy.OPEN, by=BY),
        lambda bot: identity_actions.update_identity(identity=bot, allowed_hosts=["a.example"], by=BY),
        lambda bot: identity_actions.waive_sandbox(identity=bot, because="old kernel", by=BY),
        lambda bot: identity_actions.connect_server(identity=bot, name="x", transport="stdio", command=["x"], by=BY),
    ],
    ids=["network", "list", "waiver", "server"],
)
def test_other_walls_are_another_prompt_so_that_no_waiting_process_is_used(ada: Identity, change) -> None:
    before = prompt_of(ada)
    assert prompt_of(ada) == before
    change(ada)
    assert prompt_of(ada) != before


@pytest.fixture
def no_sandbox(monkeypatch, settings) -> None:
    settings.ANTHROPIC_API_KEY = "sk-ant-canary-not-a-key"
    settings.FLEET_CLAUDE_CLI = "/bin/true"
    monkeypatch.setattr(presence, "missing", lambda: WHY)


def test_a_turn_without_a_sandbox_ends_with_a_sentence_before_anything_is_spent(
    run: Run, ada: Identity, no_sandbox: None
) -> None:
    row = run(made.queued(identity=ada, provider="claude"))
    assert (row.state, row.outcome, row.spend_stage) == (
        ExecutionState.STOPPED,
        OutcomeClass.GOVERNANCE,
        SpendStage.NONE,
    )
    assert WHY in row.sentence and "administrator" in row.sentence


def test_the_mock_needs_none(run: Run, ada: Identity, no_sandbox: None) -> None:
    assert run(made.queued(identity=ada)).state == ExecutionState.SUCCEEDED


def test_a_waived_bot_is_started(run: Run, ada: Identity, no_sandbox: None) -> None:
    """/bin/true says no version, which is said only to a bot that came so far."""
    identity_actions.waive_sandbox(identity=ada, because="old kernel", by=BY)
    ada.refresh_from_db()
    assert "did not say its version" in run(made.queued(identity=ada, provider="claude")).sentence


@pytest.mark.parametrize("setting", ["require", "off"])
def test_a_worker_says_and_journals_that_it_confines_nobody(settings, monkeypatch, setting: str) -> None:
    settings.FLEET_SANDBOX = setting
    monkeypatch.setattr(presence, "missing", lambda: WHY)
    Supervisor(slots=1)._register()
    worker = Worker.objects.get()
    assert worker.unconfined == sandbox.reason_for_none() != ""
    assert JournalEntry.objects.get(event="execution.worker.started").details["unconfined"] == worker.unconfined
    assert observations.walls() == [f"{worker.host}: {worker.unconfined}"]


def test_a_worker_that_confines_has_nothing_to_say() -> None:
    Supervisor(slots=1)._register()
    assert (Worker.objects.get().unconfined, observations.walls()) == ("", [])


def test_a_waiver_is_among_what_status_shows(ada: Identity) -> None:
    identity_actions.waive_sandbox(identity=ada, because="old kernel", by=BY)
    assert observations.walls() == ["ada: its CLI may run without a sandbox, because: old kernel"]


def test_half_a_line_in_the_file_of_refusals_harms_nobody(settings, tmp_path: Path) -> None:
    settings.FLEET_RUNTIME_DIR = tmp_path
    whole = json.dumps({"bot": "ada", "host": "evil.example", "port": 443, "why": "no", "at": 1})
    (tmp_path / "egress-refusals.jsonl").write_text(f'{whole}\n{{"bot": \nnull\n{whole}\n{whole[:20]}')
    (found,) = sandbox.taken_refusals()
    assert (found.bot, found.host, found.port, found.times) == ("ada", "evil.example", 443, 2)
    assert sandbox.taken_refusals() == []
