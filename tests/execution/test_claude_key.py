"""A bot that may run commands looks for the key or token it is paid with, and finds it nowhere. The real CLI, an emulated model."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from django.apps import apps

from execution import queries
from execution.providers import registry
from execution.states import EventKind, ExecutionState
from tests.emulators.model import ModelEmulator
from tests.execution.running import Run
from tests.factories import execution as made

pytestmark = [pytest.mark.realcli, pytest.mark.timeout(480), pytest.mark.django_db(transaction=True)]

# What a bot that was talked into it would try. The pipe's number stands in the CLI's environment; reading it again gives nothing.
LOOK = r"""
env; cat /proc/self/environ /proc/$PPID/environ | tr '\0' '\n'; ls -l /proc/$PPID/fd /proc/self/fd
number=$(tr '\0' '\n' < /proc/$PPID/environ | sed -n 's/^CLAUDE_CODE_[A-Z_]*_FILE_DESCRIPTOR=//p')
echo "descriptor $number: <$(timeout 5 cat /proc/$PPID/fd/$number)> <$(timeout 5 cat <&$number 2>&1)>"
touch looked; for _ in $(seq 200); do test -e seen && break; sleep 0.05; done
"""


@dataclass(frozen=True)
class Credential:
    """One nobody masks, so what leaks is seen; the `header` that it stands in when the CLI asks the model, and its pipe's name."""

    secret: str
    header: tuple[str, str]
    pipe: str


@pytest.fixture(params=["key", "token"])
def credential(request, settings, model_emulator: ModelEmulator) -> Credential:
    """An API key, or the token of a subscription."""
    settings.ANTHROPIC_BASE_URL = model_emulator.url
    if request.param == "key":
        settings.ANTHROPIC_API_KEY = secret = f"sk-ant-canary-{uuid.uuid4().hex}"
        found = Credential(secret, ("x-api-key", secret), "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR")
    else:
        settings.CLAUDE_CODE_OAUTH_TOKEN = secret = f"sk-ant-oat01-canary-{uuid.uuid4().hex}"
        found = Credential(secret, ("authorization", f"Bearer {secret}"), "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR")
    registry.get("claude").warm_up()
    return found


def everything_stored() -> str:
    """Return every row of every table."""
    return "\n".join(str(row) for model in apps.get_models() for row in model._default_manager.values())


def command_lines_when(looked: Path) -> list[str]:
    """Return the arguments of every process below this one, once the command has looked around."""
    deadline = time.monotonic() + 60
    while not looked.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    lines = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            lines.append(" ".join(process.cmdline()))
    looked.with_name("seen").touch()
    return lines


def test_it_is_nowhere_to_be_found(run: Run, credential: Credential, model_emulator: ModelEmulator, settings) -> None:
    secret = credential.secret
    bot = made.BotFactory(tools=["Bash"])
    model_emulator.call_tool("look around", "Bash", {"command": LOOK, "description": "look"}, then="Nothing here.")
    looked = settings.FLEET_WORKSPACES / bot.slug / "looked"
    lines: list[str] = []
    watching = threading.Thread(target=lambda: lines.extend(command_lines_when(looked)))
    watching.start()
    row = run(made.queued("look around", identity=bot, provider="claude"))
    watching.join()

    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Nothing here.")
    asked, told = model_emulator.requests
    for request in (asked, told):
        assert [(name.lower(), text) for name, text in request.headers.items() if secret in text] == [credential.header]
    (found,) = told.tool_results.values()
    assert "FLEET_RUN=" in found and f"{credential.pipe}=" in found, "it did not look"
    assert "<> <" in found and "Bad file descriptor" in found, "the pipe could be read again, or was handed down"
    assert secret not in told.body.decode()
    assert any("FILE_DESCRIPTOR" in line for line in lines), "the command was not among the processes"
    assert secret not in "\n".join(lines)

    assert EventKind.TOOL_FINISHED in {event.kind for event in queries.events_after(row.pk)}
    stored = everything_stored()
    assert "look around" in stored and secret not in stored
    written = (path for place in (settings.FLEET_HOMES, settings.FLEET_WORKSPACES) for path in place.rglob("*"))
    assert not [path for path in written if path.is_file() and secret.encode() in path.read_bytes()]
