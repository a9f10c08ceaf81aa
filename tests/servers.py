"""The servers every test run stands on: its own PostgreSQL and Valkey, unless DATABASE_URL and REDIS_URL name others.

A pytest plugin and not a conftest, because Django reads its settings before any conftest is imported.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fleet.platform.embedded import EmbeddedPostgres, EmbeddedValkey
from fleet.platform.process import EmbeddedServer

_servers = pytest.StashKey[dict[str, EmbeddedServer]]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Say where the servers will be, before the settings ask."""
    holder = tempfile.TemporaryDirectory(prefix="fleet-test-", ignore_cleanup_errors=True)
    early_config.add_cleanup(holder.cleanup)
    directory = Path(holder.name)
    os.environ.setdefault("FLEET_VAR", str(directory / "var"))
    # A developer's own credentials and servers must never be used, whatever `.env` or the shell says.
    os.environ.update(ANTHROPIC_API_KEY="", FLEET_CLAUDE_LOGIN_DIR="", TELEGRAM_API_ROOT="http://127.0.0.1:1")
    early_config.stash[_servers] = servers = {}
    for variable, server in {
        "DATABASE_URL": EmbeddedPostgres(directory / "postgres", throw_away=True),
        "REDIS_URL": EmbeddedValkey(directory / "valkey"),
    }.items():
        if variable not in os.environ:
            os.environ[variable] = server.url
            servers[server.name] = server


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Start the servers once it is certain that tests will run."""
    if session.config.option.collectonly or not session.items:
        return
    for server in session.config.stash[_servers].values():
        server.start()
        session.config.add_cleanup(server.stop)


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> EmbeddedPostgres:
    """The PostgreSQL of this test run. A test that stops it starts it again."""
    return _own(pytestconfig, "postgres")


@pytest.fixture(scope="session")
def valkey(pytestconfig: pytest.Config) -> EmbeddedValkey:
    """The Valkey of this test run. A test that stops it starts it again."""
    return _own(pytestconfig, "valkey")


def _own(config: pytest.Config, name: str) -> EmbeddedServer:
    server = config.stash[_servers].get(name)
    if server is None:
        pytest.skip(f"This test stops {name}, and the one named in the environment is not ours to stop.")
    return server
