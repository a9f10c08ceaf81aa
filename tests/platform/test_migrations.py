"""Migrations of a filled database: back to an early state and forward again, no row is lost that the older tables can hold."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from budgets import actions as budget_actions
from conversations.models import Session, Told
from execution.models import (
    Breaker,
    Execution,
    ExecutionEvent,
    HeldProcess,
    Offer,
    OrphanResult,
    ProviderCheck,
    TranscriptLine,
    Worker,
)
from execution.states import EventKind
from fleet.kernel import clock
from governance import actions as governance_actions
from identities.models import ChatAccount, Identity, McpServer, PairingAttempt
from tests.conversations import scenes
from tests.factories import budgets, governance, identities
from tests.factories.execution import BY

APPS = ("execution", "conversations", "identities", "governance", "budgets")
Rows = dict[str, list[dict[str, Any]]]
pytestmark = pytest.mark.timeout(480)


def all_migrations() -> Iterator[tuple[str, str, Any]]:
    """Every migration of ours: app, name, and itself."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    ours = {config.label for config in apps.get_app_configs() if not config.name.startswith("django")}
    for (app, name), migration in sorted(loader.disk_migrations.items()):
        module = import_module(migration.__module__)
        if app in ours and "site-packages" not in str(module.__file__):
            yield app, name, migration


def test_every_migration_can_be_undone_or_says_why_it_cannot() -> None:
    for app, name, migration in all_migrations():
        final = [operation for operation in migration.operations if not operation.reversible]
        said = import_module(migration.__module__).__doc__ or ""
        assert not final or "cannot be undone" in said, f"{app} {name}: {final}"


@pytest.fixture
def filled(transactional_db: None) -> None:
    """Rows in every table: a person talked with a bot, twice in one session, and everything else that may happen has happened."""
    ada, eva = scenes.bot("ada"), scenes.operator("eva")
    governance_actions.ensure_default_policy(by=BY)
    budget_actions.import_prices(by=BY)
    budget_actions.ensure_default_budgets(by=BY)
    ChatAccount.objects.create(platform="telegram", external_id="501", person=eva)
    for text in ("Hello", "And again"):
        turn = scenes.answer(scenes.turn_of(scenes.say(text)))
    fill_execution(turn.execution, ada)
    Told.objects.create(conversation=turn.conversation, key="parked:1")
    identities.TextPointerFactory(live__identity=ada)
    identities.ToolGrantFactory(identity=ada)
    for token in (identities.PairingCodeFactory, identities.AccessTokenFactory, identities.SignInLinkFactory):
        token(person=eva)
    PairingAttempt.objects.create(platform="telegram", external_id="502")
    McpServer.objects.create(identity=ada, name="crm", transport="stdio", command=["crm"])
    governance.StopLineFactory()
    governance.GateDecisionFactory()
    governance.KillEpochFactory()
    budgets.BudgetAlertFactory()
    budgets.ReservationLegFactory()
    budgets.TokenLedgerFactory()


def fill_execution(execution: Execution, bot: Any) -> None:
    """What an execution and its worker may leave behind."""
    now = clock.now()
    worker = Worker.objects.get(pk=execution.owner_id)
    held = {"worker": worker, "identity": bot, "began_at": now, "idle_since": now}
    HeldProcess.objects.create(**held, provider="mock", model="mock-1", session_id="s-1")
    number = execution.events.count() + 1
    ExecutionEvent.objects.create(execution=execution, sequence=number, kind=EventKind.NOTICE, payload={"text": "x"})
    Offer.objects.create(execution=execution, uuid=uuid.uuid4(), text="And this too.")
    OrphanResult.objects.create(execution=execution, epoch=0, worker_id=worker.pk, outcome="lost", answer="Half")
    Breaker.objects.create(provider="claude", login="abc")
    TranscriptLine.objects.create(project="p", session_id="s-1", uuid=str(uuid.uuid4()), line="{}")
    ProviderCheck.objects.create(provider="claude", version="1.2.3", kept=True, by="test")


@contextmanager
def a_copy() -> Iterator[None]:
    """Work on a copy of this test's database, which nobody else uses, and drop it afterwards."""
    name = connection.settings_dict["NAME"]
    copy = f"{name}_copy"
    with connection._nodb_cursor() as cursor:
        _close()
        # A thread that an earlier test left behind may still have a session there.
        sessions = "pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"  # autovacuum's are not ours to end
        cursor.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM {sessions}", [name])
        cursor.execute(f'DROP DATABASE IF EXISTS "{copy}"')
        cursor.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}"')
    connection.settings_dict["NAME"] = copy
    try:
        yield
    finally:
        _close()
        connection.settings_dict["NAME"] = name
        with connection._nodb_cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{copy}" WITH (FORCE)')


def _close() -> None:
    """Close this test's connection, and those that wait to be used again."""
    connection.close()
    connection.close_pool()


def rows() -> Rows:
    """Everything that stands in the tables of these apps, by table."""
    with connection.cursor() as cursor:
        names = [name for name in connection.introspection.table_names(cursor) if name.split("_")[0] in APPS]
        found: Rows = {}
        for name in sorted(names):
            cursor.execute(f'SELECT to_jsonb(row.*)::text FROM "{name}" AS row ORDER BY 1')
            found[name] = [json.loads(line) for (line,) in cursor.fetchall()]
    return found


def check_kept(before: Rows, after: Rows, columns: dict[str, set[str]]) -> None:
    """Every row that these columns can hold is there as it was."""
    for table, names in columns.items():
        old, new = ([_of(row, names) for row in where[table]] for where in (before, after))
        assert sorted(old) == sorted(new), table


def _of(row: dict[str, Any], columns: set[str]) -> str:
    return str(sorted((name, value) for name, value in row.items() if name in columns))


def columns_of(found: Rows) -> dict[str, set[str]]:
    """The columns of every table that has rows."""
    return {table: set(lines[0]) for table, lines in found.items() if lines}


def test_a_filled_database_goes_back_one_app_at_a_time_and_forward_again(filled: None) -> None:
    names = {app: [name for other, name, _ in all_migrations() if other == app] for app in APPS}
    for app in APPS:
        if len(names[app]) > 1:
            with a_copy():
                check_back_and_forth(app, names[app][0])
    assert Session.objects.exists() and Told.objects.exists(), "the copies were copies"


def check_back_and_forth(app: str, earliest: str) -> None:
    """Migrate one app to its earliest state, with what depends on it, and everything forward again."""
    before = rows()
    assert [table for table, lines in before.items() if not lines] == []
    call_command("migrate", app, earliest, verbosity=0)
    early = rows()
    held = {
        table: columns & columns_of(early).get(table, columns)
        for table, columns in columns_of(before).items()
        if table in early
    }
    check_kept(before, early, held)
    if "resume" in early["execution_execution"][0]:
        assert sorted(row["resume"] for row in early["execution_execution"]) == [False, True]
    call_command("migrate", verbosity=0)
    check_kept(before, rows(), held)
    assert sorted(row["session_turns"] for row in rows()["execution_execution"]) == [0, 1]


def test_bots_with_settings_that_are_refused_since_are_kept_as_they_are(transactional_db: None) -> None:
    senseless = {"max_megabytes": 1, "prewarmed": 1000, "max_turns": 0, "allowed_hosts": ["10.0.0.0/8"]}
    with a_copy():
        call_command("migrate", "identities", "0004_walls_and_mcp_servers", verbosity=0)
        identities.IdentityFactory(slug="ada", **senseless)
        identities.IdentityFactory(slug="bruno", network="allowlist")
        call_command("migrate", verbosity=0)
        ada, bruno = Identity.objects.order_by("slug")
        assert {name: getattr(ada, name) for name in senseless} == senseless
        # An allowlist of nobody let it reach its provider only, and that is what it is called now.
        assert (bruno.network, bruno.allowed_hosts) == ("provider", [])
