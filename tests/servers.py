"""The servers every test process stands on: its own PostgreSQL and Valkey, unless DATABASE_URL and REDIS_URL name others.

A pytest plugin and not a conftest, because Django reads its settings before any conftest is imported. When several
processes share a run (`-n`), each loads this plugin and starts servers of its own. On a PostgreSQL named by DATABASE_URL
each has a database of its own; one Valkey they cannot share, since what is published there reaches them all.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fleet.platform.embedded import EmbeddedPostgres, EmbeddedValkey
from fleet.platform.process import EmbeddedServer

PROCESSES = 3  # most of a run is waiting, so one more than the processors of the smallest machine it runs on
SHARED_VALKEY = "Several processes cannot share the Valkey that REDIS_URL names"

_servers = pytest.StashKey[dict[str, EmbeddedServer]]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Say where the servers will be, before the settings ask."""
    holder = tempfile.TemporaryDirectory(prefix="fleet-test-", ignore_cleanup_errors=True)
    early_config.add_cleanup(holder.cleanup)
    directory = Path(holder.name)
    # A developer's own data, credentials and bots must never be used, whatever `.env` or the shell says.
    os.environ["FLEET_VAR"] = str(directory / "var")
    nothing = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "FLEET_CLAUDE_LOGIN_DIR", "OPENAI_API_KEY")
    os.environ.update(dict.fromkeys(nothing, ""), TELEGRAM_API_ROOT="http://127.0.0.1:1")
    early_config.stash[_servers] = servers = {}
    for variable, server in {
        "DATABASE_URL": EmbeddedPostgres(directory / "postgres", throw_away=True),
        "REDIS_URL": EmbeddedValkey(directory / "valkey"),
    }.items():
        if variable not in os.environ:
            os.environ[variable] = server.url
            servers[variable] = server


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Say how many processes `-n auto` is."""
    return PROCESSES if "REDIS_URL" in config.stash[_servers] else 0


def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Let no process take the servers of this one, which only hands out tests, for servers that a person named."""
    if "REDIS_URL" not in config.stash[_servers]:
        raise pytest.UsageError(f"{SHARED_VALKEY}: leave it out, or run with -n 0.")
    for variable in config.stash[_servers]:
        del os.environ[variable]


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say why a run that was to have several processes has one."""
    alone = config.option.numprocesses == 0 and "REDIS_URL" not in config.stash[_servers]
    return f"{SHARED_VALKEY}: the tests run in one." if alone else None


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
    return _own(pytestconfig, "DATABASE_URL")


@pytest.fixture(scope="session")
def valkey(pytestconfig: pytest.Config) -> EmbeddedValkey:
    """The Valkey of this test run. A test that stops it starts it again."""
    return _own(pytestconfig, "REDIS_URL")


def _own(config: pytest.Config, variable: str) -> EmbeddedServer:
    server = config.stash[_servers].get(variable)
    if server is None:
        pytest.skip(f"This test stops a server, and the one that {variable} names is not ours to stop.")
    return server
