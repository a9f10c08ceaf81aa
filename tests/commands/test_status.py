"""`manage.py status`: what is really there, whatever is missing."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.test import override_settings

from execution.models import Breaker, Worker
from fleet import observations
from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from fleet.observations import DOWN, Part
from fleet.runner import SignOfLife
from governance import actions as governance_actions
from identities.models import Identity, Person
from tests.commands.conftest import Run
from tests.conversations import scenes

BY = Actor.system("test")


def seen(run: Run) -> dict[str, Any]:
    return json.loads(run("status", "--json").out)


@pytest.fixture
def whole(ada: Identity, eva: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """A house in which everything is up: one worker, one runner, the web."""
    scenes.running(scenes.turn_of(scenes.say(account="api:ada", person_id=eva.pk)))
    monkeypatch.setattr(observations, "web", lambda: Part("web", observations.UP, "It answers.", 0.0))
    monkeypatch.setattr("fleet.observations.runners_alive", lambda: 1)


@pytest.mark.usefixtures("whole")
class TestAHouseThatIsWell:
    def test_leaves_with_zero(self, run: Run) -> None:
        status = run("status")

        assert status.code == 0
        assert "Everything is well." in status.out

    def test_shows_what_runs_with_its_worker_and_age(self, run: Run) -> None:
        (execution,) = seen(run)["executions"]

        assert (execution["identity"], execution["state"]) == ("ada", "running")
        assert execution["worker"].startswith("here:")
        assert execution["age_seconds"] >= 0

    def test_says_that_drained_workers_take_nothing(self, run: Run) -> None:
        Worker.objects.update(draining_at=clock.now())

        assert "all drained: messages wait" in seen(run)["services"]["worker"]["sentence"]

    def test_says_which_login_is_left_alone_and_which_the_next_message_tries(self, run: Run) -> None:
        now = clock.now()
        for login, minutes in (("key-1", 30), ("key-2", -300)):
            until = now + dt.timedelta(minutes=minutes)
            Breaker.objects.create(provider="claude", login=login, state="open", opened_at=now, until=until)

        assert {row["login"]: row["state"] for row in seen(run)["logins"]} == {"key-1": "open", "key-2": "tried_next"}
        (line,) = (line for line in run("status").out.splitlines() if "tried next" in line)
        assert " now " in line

    def test_shows_what_waits(self, run: Run, eva: Person) -> None:
        scenes.say(account="api:ada", person_id=eva.pk)

        queues = seen(run)["queues"]

        assert (queues["turns"], queues["executions"], queues["outbox"], queues["inbox"]) == (1, 0, 0, 0)
        assert queues["oldest_waiting_seconds"] >= 0

    def test_says_that_the_mock_answers_and_how_to_switch(self, run: Run) -> None:
        first_line = run("status").out.splitlines()[0]

        assert "mock" in first_line and "ANTHROPIC_API_KEY" in first_line

    def test_shows_a_kill_order_first(self, run: Run) -> None:
        governance_actions.stop(scope="fleet", mode="stop", reason="drill", by=BY)

        status = run("status")

        assert "drill" in status.out
        assert status.out.index("drill") < status.out.index("SERVICE")
        assert seen(run)["kill_orders"]

    def test_says_when_it_was_read(self, run: Run) -> None:
        assert seen(run)["read_at"].startswith("20")

    def test_aligns_its_columns(self, run: Run) -> None:
        table = [
            line for line in run("status").out.splitlines() if line.startswith(("SERVICE", "postgres", "redis", "web"))
        ]

        assert len({line.index(word) for line, word in zip(table, ("STATE", "up", "up", "up"), strict=True)}) == 1


@pytest.mark.usefixtures("db")
class TestAHouseThatIsNot:
    def test_leaves_with_one(self, run: Run) -> None:
        status = run("status")

        assert status.code == 1
        assert "needs attention" in status.out

    def test_shows_everything_else_without_redis(self, run: Run) -> None:
        with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
            services = seen(run)["services"]

        assert services["redis"]["state"] == "down"
        assert services["postgres"]["state"] == "up"
        assert set(services) >= {"worker", "runner", "gateways", "schema"}

    def test_shows_what_it_can_without_a_database(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(observations, "database", lambda: Part("postgres", DOWN, "It does not answer."))

        status = run("status")

        assert status.code == 1
        assert "postgres" in status.out and "redis" in status.out

    def test_shows_only_the_schema_while_migrations_are_missing(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(observations, "migrations", lambda: Part("schema", DOWN, "3 migrations are missing."))

        assert seen(run)["services"]["schema"]["state"] == "down"

    def test_tells_another_program_on_the_port_from_fleet(self, run: Run) -> None:
        with override_settings(FLEET_PORT=1):
            assert seen(run)["services"]["web"]["state"] == "down"


class TestTheRunner:
    def test_is_down_when_nobody_shows_a_sign_of_life(self, db: None) -> None:
        assert observations.runner().state == "down"

    def test_is_up_while_it_shows_one(self, db: None) -> None:
        sign = SignOfLife()
        sign.show()
        try:
            assert observations.runner().state == "up"
        finally:
            sign.hide()
        assert observations.runner().state == "down"

    def test_is_late_when_the_journal_waits_to_be_sealed(self, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        journal.record("test.thing.happened", by=BY, subject=("test", 1))
        monkeypatch.setattr("fleet.observations.runners_alive", lambda: 1)
        monkeypatch.setattr(observations, "SEAL_LATE_SECONDS", -1.0)

        assert observations.runner().state == "late"


@pytest.mark.usefixtures("whole")
def test_a_part_that_does_not_exist_is_named_and_is_not_well(run: Run) -> None:
    outcome = run("status", "--part", "runnner")
    assert outcome.code == 1
    assert "No part called “runnner” could be read. There were: postgres" in outcome.err
