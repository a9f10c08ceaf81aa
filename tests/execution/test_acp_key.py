"""An agent that takes its key from a pipe: a tool of its finds the key nowhere. A real agent, an emulated model."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from execution.providers import registry
from execution.providers.telling import LOST_SESSION
from execution.shim.processes import is_alive
from execution.states import ExecutionState
from identities.models import Identity
from tests.emulators import agents
from tests.emulators.model import ModelEmulator
from tests.execution.running import Run
from tests.execution.test_claude_key import everything_stored
from tests.factories import execution as made

pytestmark = [pytest.mark.realcli, pytest.mark.timeout(120), pytest.mark.django_db(transaction=True)]
LOOK = r"""
exec > looked.txt 2>&1
env; cat /proc/*/environ /proc/*/cmdline | tr '\0' '\n'; for pipe in /proc/*/fd/*; do timeout 1 cat $pipe < /dev/null; done
grep -rs canary "$HOME" "$TMPDIR" /tmp /run /etc
"""


@pytest.fixture
def bot(settings, model_emulator: ModelEmulator) -> Identity:
    name = f"agent-{uuid.uuid4().hex[:6]}"  # a provider is made once, and each test has another model
    settings.FLEET_ACP_AGENTS = {name: replace(agents.claude_agent(model_emulator.url), name=name)}
    settings.FLEET_PROVIDERS = {
        **settings.FLEET_PROVIDERS,
        name: f"execution.providers.acp.provider.AcpProvider:{name}",
    }
    settings.FLEET_ACP_SECRETS = {"AGENT_KEY": f"sk-ant-canary-{uuid.uuid4().hex}"}
    model_emulator.call_tool("look around", "Bash", {"command": LOOK, "description": "look"}, then="Nothing here.")
    return made.BotFactory(tools=["Bash"], provider_chain=[name])


def test_the_key_is_nowhere_to_be_found(run: Run, bot: Identity, settings, model_emulator: ModelEmulator) -> None:
    (name,), key = bot.provider_chain, settings.FLEET_ACP_SECRETS["AGENT_KEY"]
    registry.get(name).warm_up()
    row = run(made.queued("look around", identity=bot, provider=name))
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Nothing here."), row.sentence
    for request in model_emulator.requests:
        assert [header.lower() for header, text in request.headers.items() if key in text] == ["x-api-key"]
        assert key not in request.body.decode()
    found = (settings.FLEET_WORKSPACES / bot.slug / "looked.txt").read_text(errors="replace")
    assert "AGENT_KEY_PIPE=" in found and "claude-agent-acp" in found, "it did not look"
    assert key not in found and key not in everything_stored()
    written = (path for place in (settings.FLEET_HOMES, settings.FLEET_WORKSPACES) for path in place.rglob("*"))
    assert not [path for path in written if path.is_file() and key.encode() in path.read_bytes()]


def test_a_session_that_is_lost_begins_anew_with_the_key(
    run: Run, bot: Identity, settings, model_emulator: ModelEmulator
) -> None:
    (name,), session = bot.provider_chain, str(uuid.uuid4())
    said = run(made.queued("My name is Eva.", identity=bot, provider=name, session_id=session))
    assert said.state == ExecutionState.SUCCEEDED, said.sentence
    for transcript in settings.FLEET_HOMES.rglob("*.jsonl"):
        transcript.unlink()
    row = run(made.queued("Who am I?", identity=bot, provider=name, session_id=session, session_turns=1))
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "You said: Who am I?"), row.sentence
    assert (row.details["told"], row.cause) == ([LOST_SESSION], "")
    assert "Eva" not in str(model_emulator.requests[-1].messages)
    assert not is_alive(said.pid, said.pid_started_at) and not is_alive(row.pid, row.pid_started_at)
    again = run(made.queued("And now?", identity=bot, provider=name, session_id=session, session_turns=2))
    assert (again.state, again.details.get("told")) == (ExecutionState.SUCCEEDED, None), again.sentence
    assert "Who am I?" in str(model_emulator.requests[-1].messages)


def test_an_agent_without_the_key_for_its_pipe_says_which_is_missing(bot: Identity, settings) -> None:
    settings.FLEET_ACP_SECRETS = {"AGENT_KEY": ""}
    assert "AGENT_KEY" in registry.make(bot.provider_chain[0]).check()
