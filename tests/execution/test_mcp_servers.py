"""A bot uses tools from outside: the judge is asked, and the server's secret is nowhere that the bot could look."""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from django.apps import apps

from execution import queries
from execution.engine import workspace
from execution.providers import registry
from execution.states import EventKind, ExecutionState, OutcomeClass
from fleet.kernel.actors import Actor
from governance.models import GateDecision
from identities import actions as identity_actions
from identities.models import Identity
from identities.states import Transport
from tests.emulators.model import ModelEmulator
from tests.execution import mcp_server
from tests.execution.running import Run
from tests.factories import execution as made

pytestmark = [pytest.mark.realcli, pytest.mark.timeout(120), pytest.mark.django_db(transaction=True)]
BY = Actor.system("test")
SERVER = Path(__file__).with_name("mcp_server.py")
TOOL = "mcp__crm__find_customer"
LOOK = r"""
exec > looked.txt 2>&1; env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\0' '\n'; ls -la "$CLAUDE_CODE_TMPDIR" /tmp "$HOME"
cat "$CLAUDE_CODE_TMPDIR"/mcp.json 2>&1; grep -rs canary "$HOME" "$PWD" /tmp "$CLAUDE_CODE_TMPDIR" /run; ps aux
"""


@pytest.fixture
def model(settings, model_emulator: ModelEmulator) -> ModelEmulator:
    settings.ANTHROPIC_API_KEY = f"sk-ant-canary-{uuid.uuid4().hex}"
    settings.ANTHROPIC_BASE_URL = model_emulator.url
    settings.FLEET_SANDBOX_READABLE = [*settings.FLEET_SANDBOX_READABLE, str(SERVER)]
    registry.get("claude").warm_up()
    model_emulator.call_tool("customer", TOOL, {"name": "Larkfield"}, then="It is 4711.")
    model_emulator.call_tool("look around", "Bash", {"command": LOOK, "description": "look"}, then="Nothing here.")
    return model_emulator


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


def test_a_bot_calls_a_tool_of_its_server(run: Run, model: ModelEmulator, secret: str) -> None:
    bot = made.BotFactory(tools=[TOOL])
    connect(bot, secret)
    row = run(made.queued("Which customer is Larkfield?", identity=bot, provider="claude"))

    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "It is 4711."), row.sentence
    (found,) = model.requests[-1].tool_results.values()
    assert "Larkfield is customer 4711" in found
    assert hashlib.sha256(secret.encode()).hexdigest()[:12] in found, "the server did not get its secret"
    assert "at alps" in found


def test_a_call_that_no_grant_names_does_not_reach_the_server(run: Run, model: ModelEmulator, secret: str) -> None:
    bot = made.BotFactory(tools=["Bash"])
    connect(bot, secret)
    row = run(made.queued("Which customer is Larkfield?", identity=bot, provider="claude"))

    (found,) = model.requests[-1].tool_results.values()
    assert "4711" not in found
    assert GateDecision.objects.filter(facts__tool=TOOL).exists()
    assert EventKind.TOOL_DENIED in {event.kind for event in queries.events_after(row.pk)}


def test_the_bot_finds_the_servers_secret_nowhere(run: Run, model: ModelEmulator, secret: str, settings) -> None:
    bot = made.BotFactory(tools=["Bash", TOOL])
    connect(bot, secret)
    row = run(made.queued("look around", identity=bot, provider="claude"))

    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Nothing here."), row.sentence
    found = (settings.FLEET_WORKSPACES / bot.slug / "looked.txt").read_text(errors="replace")
    assert "CLAUDE_CONFIG_DIR=" in found and "mcp_connect.py" in found, "it did not look"
    assert "No such file" in found, "the file that says how to reach the servers is still there"
    assert secret not in found
    assert secret not in "".join(request.body.decode() for request in model.requests)
    assert secret not in everything_stored()
    written = (path for place in (settings.FLEET_HOMES, settings.FLEET_WORKSPACES) for path in place.rglob("*"))
    assert not [path for path in written if path.is_file() and secret.encode() in path.read_bytes()]


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


def test_a_server_behind_an_address_gets_its_secret_and_the_bot_does_not(
    run: Run, model: ModelEmulator, secret: str, settings, door: tuple[Door, str]
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
    row = run(made.queued("Which customer is Larkfield?", identity=bot, provider="claude"))
    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "It is 4711."), row.sentence
    assert "Larkfield is customer 4711" in str(model.requests[-1].tool_results)
    assert door[0].shown == {f"Bearer {secret}"}

    run(made.queued("look around", identity=bot, provider="claude"))
    found = (settings.FLEET_WORKSPACES / bot.slug / "looked.txt").read_text(errors="replace")
    assert "CLAUDE_CONFIG_DIR=" in found and "No such file" in found and secret not in found
    assert secret not in everything_stored()


def test_a_secret_that_was_never_entered_stops_the_turn_with_a_sentence(run: Run, model: ModelEmulator) -> None:
    bot = made.BotFactory(tools=[TOOL])
    identity_actions.connect_server(
        identity=bot, name="crm", transport=Transport.STDIO, command=["true"], secret_names=["CRM_TOKEN"], by=BY
    )
    bot.refresh_from_db()
    row = run(made.queued("Which customer?", identity=bot, provider="claude"))

    assert row.outcome == OutcomeClass.GOVERNANCE
    assert "CRM_TOKEN" in row.sentence and "administrator" in row.sentence
    assert model.requests == []


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
