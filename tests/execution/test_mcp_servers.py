"""A bot uses tools from outside: the judge is asked, and the server's secret is nowhere that the bot could look."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.apps import apps
from django.conf import settings

from execution import queries
from execution.engine import workspace
from execution.models import Execution
from execution.providers import registry
from execution.states import EventKind, ExecutionState, OutcomeClass
from fleet.kernel.actors import Actor
from governance.models import GateDecision
from identities import actions as identity_actions
from identities.models import Identity
from identities.states import Transport
from tests.emulators import agents
from tests.emulators.model import ModelEmulator
from tests.execution import mcp_server
from tests.execution.running import Run
from tests.factories import execution as made

pytestmark = [pytest.mark.realcli, pytest.mark.timeout(480), pytest.mark.django_db(transaction=True)]
Queued = Callable[..., Execution]
BY = Actor.system("test")
SERVER = Path(__file__).with_name("mcp_server.py")
TOOL = "mcp__crm__find_customer"
CUSTOMER = ("customer", "And again?", "Once more?")  # each a call of its own
LOOK = r"""
exec > looked.txt 2>&1; env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\0' '\n'
for place in "${CLAUDE_CODE_TMPDIR:-$CODEX_HOME}" /tmp /tmp/fleet-* "$HOME"; do ls -la "$place"; cat "$place"/mcp.json; done 2>&1
grep -rs canary "$HOME" "$PWD" /tmp /run; ps aux
"""


@pytest.fixture(params=["claude", "codex", "agent"])
def provider(request: pytest.FixtureRequest, settings, model_emulator: ModelEmulator) -> str:
    """A provider that has MCP servers, and an emulated model that asks for their tools as its CLI offers them."""
    name, key = request.param, f"sk-ant-canary-{uuid.uuid4().hex}"
    settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = key, model_emulator.url
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = key, f"{model_emulator.url}/v1"
    settings.FLEET_SANDBOX_READABLE = [*settings.FLEET_SANDBOX_READABLE, str(SERVER)]
    settings.FLEET_ACP_SECRETS = {"AGENT_KEY": key}
    if name == "agent":
        name = f"agent-{uuid.uuid4().hex[:6]}"  # a provider is made once, and each test has another model
        settings.FLEET_ACP_AGENTS = {name: replace(agents.claude_agent(model_emulator.url), name=name)}
        acp = {name: f"execution.providers.acp.provider.AcpProvider:{name}"}
        settings.FLEET_PROVIDERS = {**settings.FLEET_PROVIDERS, **acp}
    registry.get(name).warm_up()
    asked = {"name": "Larkfield"}
    if name == "codex":  # its model calls tools from a script
        script = f"const said = await tools.{TOOL}({json.dumps(asked)}); text(JSON.stringify(said))"
        for said in CUSTOMER:
            model_emulator.call_script(said, script, then="It is 4711.")
        model_emulator.call_tool("look around", "exec_command", {"cmd": LOOK}, then="Nothing here.")
    else:
        for said in CUSTOMER:
            model_emulator.call_tool(said, TOOL, asked, then="It is 4711.")
        model_emulator.call_tool("look around", "Bash", {"command": LOOK, "description": "look"}, then="Nothing here.")
    return name


@pytest.fixture
def model(provider: str, model_emulator: ModelEmulator) -> ModelEmulator:
    return model_emulator


@pytest.fixture
def queued(provider: str) -> Callable[..., Execution]:
    """A turn of this bot, as it waits for a worker."""
    of_model = {"model": settings.FLEET_CODEX_MODEL} if provider == "codex" else {}
    return partial(made.queued, provider=provider, **of_model)


@pytest.fixture
def secret() -> str:
    """A secret nobody masks: what leaks is seen."""
    return f"canary-{uuid.uuid4().hex}"


def connect(bot: Identity, secret: str) -> None:
    identity_actions.connect_server(
        identity=bot,
        name="crm",
        transport=Transport.STDIO,
        command=[sys.executable, str(SERVER)],
        settings={"CRM_REGION": "alps"},
        secrets={"CRM_TOKEN": secret},
        by=BY,
    )
    bot.refresh_from_db()


def everything_stored() -> str:
    return "\n".join(str(row) for model in apps.get_models() for row in model._default_manager.values())


def check_nowhere(secret: str, settings: Any) -> None:
    """It is in no row and in no file of the bot's."""
    assert secret not in everything_stored()
    written = [path for place in (settings.FLEET_HOMES, settings.FLEET_WORKSPACES) for path in place.rglob("*")]
    assert len(written) > 1
    assert not [path for path in written if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_bot_calls_a_tool_of_its_server(run: Run, queued: Queued, model: ModelEmulator, secret: str) -> None:
    bot = made.BotFactory(tools=[TOOL])
    connect(bot, secret)
    row = run(queued("Which customer is Larkfield?", identity=bot))

    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "It is 4711."), row.sentence
    found = str(model.requests[-1].tool_results)
    assert "Larkfield is customer 4711" in found
    assert hashlib.sha256(secret.encode()).hexdigest()[:12] in found, "the server did not get its secret"
    assert "at alps" in found


def test_the_sessions_next_turns_have_it_too(run: Run, queued: Queued, model: ModelEmulator, secret: str) -> None:
    """In the process that stayed, and in one that resumes the session."""
    bot = made.BotFactory(tools=[TOOL])
    connect(bot, secret)
    row = run(queued("Which customer is Larkfield?", identity=bot))
    for turns, said in enumerate(CUSTOMER[1:], 1):
        if turns == 2:
            connect(bot, f"{secret}-2")  # no process from before may be used
        next_row = run(queued(said, identity=bot, session_id=row.session_id, session_turns=turns))
        assert (next_row.state, next_row.answer) == (ExecutionState.SUCCEEDED, "It is 4711."), next_row.sentence
        assert "Larkfield is customer 4711" in str(model.requests[-1].tool_results)
    assert hashlib.sha256(f"{secret}-2".encode()).hexdigest()[:12] in str(model.requests[-1].tool_results)


def test_a_server_that_does_not_start_is_missing_and_the_turn_goes_on(
    run: Run, queued: Queued, model: ModelEmulator
) -> None:
    bot = made.BotFactory(tools=[TOOL])
    identity_actions.connect_server(identity=bot, name="crm", transport=Transport.STDIO, command=["false"], by=BY)
    bot.refresh_from_db()
    row = run(queued("Hello", identity=bot))
    assert row.state == ExecutionState.SUCCEEDED, row.sentence
    assert row.answer.endswith("You said: Hello")  # an agent may tell of it by itself


def test_a_call_that_no_grant_names_does_not_reach_the_server(
    run: Run, queued: Queued, model: ModelEmulator, secret: str
) -> None:
    bot = made.BotFactory(tools=["Bash"])
    connect(bot, secret)
    row = run(queued("Which customer is Larkfield?", identity=bot))

    found = str(model.requests[-1].tool_results)
    assert "4711" not in found
    assert GateDecision.objects.filter(facts__tool=TOOL).exists()
    assert EventKind.TOOL_DENIED in {event.kind for event in queries.events_after(row.pk)}


def test_the_bot_finds_the_servers_secret_nowhere(
    run: Run, queued: Queued, model: ModelEmulator, secret: str, settings
) -> None:
    bot = made.BotFactory(tools=["Bash", TOOL])
    connect(bot, secret)
    row = run(queued("look around", identity=bot))

    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Nothing here."), row.sentence
    found = (settings.FLEET_WORKSPACES / bot.slug / "looked.txt").read_text(errors="replace")
    assert "HOME=" in found and "mcp_connect.py" in found, "it did not look"
    assert "No such file" in found, "the file that says how to reach the servers is still there"
    assert secret not in found
    assert secret not in "".join(request.body.decode() for request in model.requests)
    check_nowhere(secret, settings)


PLANTED = """
import os, pathlib
(pathlib.Path(__file__).parent / "stolen.txt").write_text(os.environ.get("CRM_TOKEN", ""))
"""


@pytest.mark.parametrize("waiver", ["", "old kernel"], ids=["enclosed", "waived"])
@pytest.mark.parametrize("provider", ["claude"], indirect=True)
def test_a_module_that_the_bot_wrote_is_not_run_in_the_servers_place(
    run: Run, queued: Queued, model: ModelEmulator, secret: str, settings, waiver: str
) -> None:
    """Python, Node and others look where they were started before they look anywhere else."""
    bot = made.BotFactory(tools=[TOOL], sandbox_waiver=waiver, network="open" if waiver else "provider")
    identity_actions.connect_server(
        identity=bot,
        name="crm",
        transport=Transport.STDIO,
        command=[sys.executable, "-m", SERVER.stem],
        settings={"PYTHONPATH": str(SERVER.parent)},
        secrets={"CRM_TOKEN": secret},
        by=BY,
    )
    bot.refresh_from_db()
    place = settings.FLEET_WORKSPACES / bot.slug
    place.mkdir(parents=True)
    for name in (SERVER.stem, "mcp", "uvicorn"):
        (place / f"{name}.py").write_text(PLANTED)
    row = run(queued("Which customer is Larkfield?", identity=bot))

    assert not (place / "stolen.txt").exists(), "the planted module ran, with the secret"
    found = str(model.requests[-1].tool_results)
    assert hashlib.sha256(secret.encode()).hexdigest()[:12] in found, row.sentence
    assert f"in {place}" in found, "the server was not told where its bot works"


class Door:
    """An MCP server behind an address, and the Authorization it was shown."""

    def __init__(self) -> None:
        self.shown: set[str] = set()
        self._inner = mcp_server.server.streamable_http_app()

    async def __call__(self, scope, receive, send) -> None:
        for name, value in scope.get("headers", ()):
            if name == b"authorization":
                self.shown.add(value.decode())
        await self._inner(scope, receive, send)


@pytest.fixture
def door() -> Iterator[tuple[Door, str]]:
    door, listening = Door(), socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(door, log_level="error"))
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    serving.start()
    yield door, f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    server.should_exit = server.force_exit = True
    serving.join(30)


@pytest.mark.parametrize("provider", ["claude", "codex"], indirect=True)
def test_a_server_behind_an_address_gets_its_secret_and_the_bot_does_not(
    run: Run, queued: Queued, model: ModelEmulator, secret: str, settings, door: tuple[Door, str]
) -> None:
    bot = made.BotFactory(tools=["Bash", TOOL])
    identity_actions.connect_server(
        identity=bot,
        name="crm",
        transport=Transport.HTTP,
        url=door[1],
        secrets={"Authorization": f"Bearer {secret}"},
        by=BY,
    )
    bot.refresh_from_db()
    row = run(queued("Which customer is Larkfield?", identity=bot))
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "It is 4711."), row.sentence
    assert "Larkfield is customer 4711" in str(model.requests[-1].tool_results)
    assert door[0].shown == {f"Bearer {secret}"}

    run(queued("look around", identity=bot))
    found = (settings.FLEET_WORKSPACES / bot.slug / "looked.txt").read_text(errors="replace")
    assert ("CLAUDE_CONFIG_DIR=" in found or "CODEX_HOME=" in found) and "No such file" in found and secret not in found
    check_nowhere(secret, settings)


def test_a_secret_that_was_never_entered_stops_the_turn_with_a_sentence(
    run: Run, queued: Queued, model: ModelEmulator
) -> None:
    bot = made.BotFactory(tools=[TOOL])
    identity_actions.connect_server(
        identity=bot, name="crm", transport=Transport.STDIO, command=["true"], secret_names=["CRM_TOKEN"], by=BY
    )
    bot.refresh_from_db()
    row = run(queued("Which customer?", identity=bot))

    assert row.outcome == OutcomeClass.GOVERNANCE
    assert "CRM_TOKEN" in row.sentence and "administrator" in row.sentence
    assert model.requests == []


@pytest.mark.parametrize("provider", ["codex"], indirect=True)
class TestCodex:
    """What only Codex does with MCP servers."""

    @pytest.fixture
    def model(self, provider: str, model_emulator: ModelEmulator) -> ModelEmulator:
        list_them = "text(JSON.stringify(await tools.list_mcp_resources({})))"
        read_one = 'text(JSON.stringify(await tools.read_mcp_resource({server: "crm", uri: "crm://customers"})))'
        model_emulator.call_script("list", list_them, then="Listed.")
        model_emulator.call_script("read", read_one, then="Read.")
        return model_emulator

    @pytest.mark.parametrize("said", ["list", "read"])
    def test_it_gets_only_the_tools_of_a_program_since_it_reads_the_rest_unasked(
        self, run: Run, queued: Queued, model: ModelEmulator, secret: str, said: str
    ) -> None:
        bot = made.BotFactory(tools=[TOOL, "mcp__crm__read_mcp_resource"])
        connect(bot, secret)
        row = run(queued(said, identity=bot))
        assert row.state == ExecutionState.SUCCEEDED, row.sentence
        assert "Larkfield and Sons" not in str([request.tool_results for request in model.requests])

    @pytest.mark.parametrize("grants", [[TOOL], [TOOL, "mcp__crm__read_mcp_resource"]], ids=["not", "granted"])
    def test_what_it_reads_from_an_address_is_judged_afterwards(
        self, run: Run, queued: Queued, model: ModelEmulator, door: tuple[Door, str], grants: list[str]
    ) -> None:
        bot = made.BotFactory(tools=grants)
        identity_actions.connect_server(identity=bot, name="crm", transport=Transport.HTTP, url=door[1], by=BY)
        bot.refresh_from_db()
        row = run(queued("read", identity=bot))
        if len(grants) == 2:
            assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Read."), row.sentence
            assert "Larkfield and Sons" in str(model.requests[-1].tool_results)
        else:
            assert (row.state, row.answer) == (ExecutionState.FAILED, "")
            assert "without asking" in row.sentence and "no grant covers it" in row.sentence

    def test_what_it_does_not_speak_is_said(self, run: Run, queued: Queued, model: ModelEmulator) -> None:
        bot = made.BotFactory(tools=[TOOL])
        identity_actions.connect_server(
            identity=bot, name="crm", transport=Transport.SSE, url="http://127.0.0.1:9/sse", by=BY
        )
        bot.refresh_from_db()
        row = run(queued("Which customer?", identity=bot))
        assert row.outcome == OutcomeClass.GOVERNANCE
        assert "Codex does not speak" in row.sentence and "another provider" in row.sentence


def test_a_new_secret_is_another_prompt_so_that_no_old_process_goes_on(secret: str) -> None:
    bot = made.BotFactory(tools=[TOOL])
    connect(bot, secret)
    before = prompt_of(bot)
    assert before == prompt_of(bot)
    connect(bot, f"{secret}-2")
    assert before != prompt_of(bot)
    assert secret not in repr(before)


def prompt_of(bot: Identity):
    texts = workspace.last_known(bot)
    return workspace.prompt_of(bot, texts, model="m", session_id="s", session_turns=0)
