"""Every secret of an installation is seeded as a canary; a bot looks for them inside, we look outside. A real worker, a real CLI."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from django.apps import apps
from django.conf import settings as django_settings

from execution.models import Execution
from execution.states import ExecutionState
from fleet.kernel.actors import Actor
from identities import actions as identity_actions
from identities.states import Transport
from tests.emulators.model import ModelEmulator
from tests.execution.running import CeleryWorker, database_url, ended, until
from tests.factories import execution as made

pytestmark = [pytest.mark.realcli, pytest.mark.timeout(600), pytest.mark.django_db(transaction=True)]
SERVER = Path(__file__).with_name("mcp_server.py")
BY = Actor.system("test")
# Everything a bot that was talked into it would look at. `canary` is in the name of no file, only in secrets.
LOOK = r"""
exec > looked.txt 2>&1
env; cat /proc/*/environ /proc/*/cmdline | tr '\0' '\n'; for d in /proc/*/fd/*; do timeout 1 cat $d < /dev/null; done
cat {root}/.env {var}/servers.env {var}/keys/* {var}/worker.log; ls -laR {var} {root}
grep -rs canary "$HOME" "$PWD" "$CLAUDE_CODE_TMPDIR" /tmp /run /etc
touch looked; for _ in $(seq 300); do test -e seen && break; sleep 0.05; done
"""


class Canaries:
    """One secret of each kind, and what was found of them where."""

    def __init__(self) -> None:
        self.names = ("API", "DJANGO", "DATABASE", "TELEGRAM", "MCP", "OPENAI", "OAUTH")
        self.secrets = {name: f"canary-{name.lower()}-{uuid.uuid4().hex}" for name in self.names}

    def __getitem__(self, name: str) -> str:
        return self.secrets[name]

    def found_in(self, text: str) -> list[str]:
        return [name for name, secret in self.secrets.items() if secret in text]


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def worker(canaries: Canaries, model_emulator: ModelEmulator, tmp_path: Path) -> Iterator[CeleryWorker]:
    """A worker that holds them all."""
    scheme, _, rest = database_url().partition("://")
    account, _, place = rest.rpartition("@")
    worker = CeleryWorker(
        tmp_path / "var",
        DATABASE_URL=f"{scheme}://{account.partition(':')[0]}:{canaries['DATABASE']}@{place}",
        FLEET_KEYSET_FILE=django_settings.FLEET_KEYSET_FILE,
        FLEET_SECRET_KEY=canaries["DJANGO"] + "x" * 40,
        FLEET_TELEGRAM_ADA_TOKEN=f"4711:{canaries['TELEGRAM']}",
        ANTHROPIC_API_KEY=canaries["API"],
        CLAUDE_CODE_OAUTH_TOKEN=canaries["OAUTH"],
        OPENAI_API_KEY=canaries["OPENAI"],
        ANTHROPIC_BASE_URL=model_emulator.url,
        FLEET_SANDBOX_READABLE=",".join([sys.prefix, sys.base_prefix, str(SERVER)]),
    )
    worker.start()
    yield worker
    worker.stop()


def everything_stored() -> str:
    return "\n".join(str(row) for model in apps.get_models() for row in model._default_manager.values())


def tree_of(worker: CeleryWorker) -> Iterator[tuple[str, str, str]]:
    """Yield name, arguments and environment of everything below the worker."""
    for process in worker.offspring():
        with contextlib.suppress(psutil.NoSuchProcess):
            yield process.name(), "\0".join(process.cmdline()), str(process.environ())


def test_no_secret_is_to_be_found_inside_or_outside(
    worker: CeleryWorker, canaries: Canaries, model_emulator: ModelEmulator, tmp_path: Path
) -> None:
    var = tmp_path / "var"
    bot = made.BotFactory(slug="ada", tools=["Bash", "mcp__crm__find_customer"])
    identity_actions.connect_server(
        identity=bot,
        name="crm",
        transport=Transport.STDIO,
        command=[sys.executable, str(SERVER)],
        secrets={"CRM_TOKEN": canaries["MCP"]},
        by=BY,
    )
    command = LOOK.replace("{root}", str(django_settings.ROOT)).replace("{var}", str(var))
    model_emulator.call_tool("look around", "Bash", {"command": command, "description": "look"}, then="Nothing here.")
    execution = made.queued("look around", identity=bot, provider="claude")
    workspace = var / "workspaces" / "ada"
    deadline = time.monotonic() + 90
    while not (workspace / "looked").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    tree = list(tree_of(worker))
    (workspace / "seen").touch()
    row = until(ended, execution)

    assert (row.state, row.answer) == (ExecutionState.SUCCEEDED, "Nothing here."), row.sentence
    assert model_emulator.requests[0].headers["x-api-key"] == canaries["API"], "the worker did not hold the canaries"
    found = (workspace / "looked.txt").read_text(errors="replace")
    assert "CLAUDE_CONFIG_DIR=" in found and "mcp_connect.py" in found, "it did not look"
    assert canaries.found_in(found) == [], "found from inside"

    assert any("mcp_server" in arguments for _, arguments, _ in tree) and any(name == "claude" for name, _, _ in tree)
    for name, arguments, environment in tree:
        assert canaries.found_in(arguments) == [], f"in the arguments of {name}"
        allowed = ["MCP"] if "CRM_TOKEN" in environment else []  # the server's own, and that of the walls around it
        assert canaries.found_in(environment) == allowed, f"in the environment of {name}"

    assert canaries.found_in("".join(request.body.decode() for request in model_emulator.requests)) == []
    assert canaries.found_in(everything_stored()) == [], "in the database"
    assert Execution.objects.filter(pk=row.pk).exists()
    worker.stop()
    for path in (file for file in var.rglob("*") if file.is_file() and file.name != "looked.txt"):
        assert canaries.found_in(path.read_text(errors="replace")) == [], f"in {path}"
