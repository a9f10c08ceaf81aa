"""Whose trouble it is that no answer comes: this machine's network, the bot's network policy, or the vendor's servers.

The real CLIs, in their sandboxes; only the proxy of a sandbox knows what the CLI itself cannot tell.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execution import sandbox
from execution.models import Breaker, Execution
from execution.outcomes import policy_of
from execution.sandbox import enclosing, troubles
from execution.sandbox.troubles import DIRECTORY
from execution.states import Cause, EventKind, OutcomeClass
from tests.emulators.model import ModelEmulator
from tests.execution.running import run, table
from tests.faults.test_execution_api import BOTH, Ask, ask, check, model

__all__ = ["ask", "model", "run", "table"]
pytestmark = [pytest.mark.realcli, pytest.mark.timeout(180)]


@pytest.fixture
def runtime(settings: Any, tmp_path: Path) -> Path:
    settings.FLEET_RUNTIME_DIR = tmp_path / "run"
    return tmp_path / "run"


def api_is(settings: Any, url: str) -> None:
    settings.ANTHROPIC_BASE_URL, settings.OPENAI_BASE_URL = url, f"{url}/v1"


def check_network(row: Execution, place: str, why: str) -> None:
    """It is told as this machine's trouble, another provider may take it, and one such end shuts no login."""
    check(row, OutcomeClass.ERROR, Cause.NETWORK)
    assert f"This machine cannot reach {place}: {why}" in row.sentence
    assert "firewall" in row.sentence and "servers" not in row.sentence
    assert policy_of(row.cause).fails_over
    assert Breaker.objects.get().state == "closed"


@BOTH
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_nobody_knows(
    ask: Ask, model: ModelEmulator, settings: Any, runtime: Path, provider: str, scheme: str
) -> None:
    """Codex would wait for a network for ever, were it not told not to."""
    api_is(settings, f"{scheme}://api.nowhere.invalid")
    row = ask(provider)
    check_network(row, "api.nowhere.invalid", "its name could not be looked up")
    assert not list((runtime / DIRECTORY).iterdir()), "what was noted goes with the sandbox"


@BOTH
def test_a_port_where_nobody_listens(
    ask: Ask, model: ModelEmulator, settings: Any, runtime: Path, provider: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        api_is(settings, f"http://{place}")
        row = ask(provider)
    check_network(row, place, "the connection was refused")
    waited = [event.payload for event in row.events.filter(kind=EventKind.RETRYING)]
    assert waited and all(one["cause"] == Cause.NETWORK for one in waited)
    assert waited[0]["text"].startswith(f"This machine cannot reach {place}; trying again")


@BOTH
def test_what_the_network_policy_keeps_it_from(
    ask: Ask, model: ModelEmulator, runtime: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the API's address leads elsewhere than the sandbox was told: our 403 is no refused key."""
    monkeypatch.setattr(enclosing, "rules", lambda *_: [("api.example.com", 443, True)])
    row = ask(provider)
    check(row, OutcomeClass.ERROR, Cause.POLICY)
    assert "network policy does not let it reach 127.0.0.1" in row.sentence and "key" not in row.sentence
    assert "An administrator can allow it" in row.sentence
    assert not Breaker.objects.exists(), "the login has done nothing"
    assert model.requests == []


@pytest.fixture
def hangs_up() -> Iterator[str]:
    """A server that answers whatever it is asked with a 502 of its own, as `http://127.0.0.1:<port>`."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")

    threading.Thread(target=answer, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()


@BOTH
def test_a_502_of_the_vendors_own_is_the_vendors(
    ask: Ask, model: ModelEmulator, settings: Any, runtime: Path, provider: str, hangs_up: str
) -> None:
    api_is(settings, hangs_up)
    row = ask(provider)
    check(row, OutcomeClass.OVERLOAD, Cause.SERVER_FAULT)


def test_old_notes_are_removed(runtime: Path) -> None:
    for session, age in (("old", 2 * troubles.OLD_SECONDS), ("young", 0.0)):
        path = troubles.file(session)
        path.write_text('{"host": "a.example", "port": 443, "kind": "name", "why": "no"}')
        moment = path.stat().st_mtime - age
        os.utime(path, (moment, moment))
    sandbox.forget_old()
    assert sandbox.trouble_of("old") is None
    young = sandbox.trouble_of("young")
    assert young is not None and (young.place, young.kind) == ("a.example", "name")
    sandbox.forget("young")
    assert sandbox.trouble_of("young") is None
