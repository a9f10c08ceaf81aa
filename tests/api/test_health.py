"""Probes and numbers."""

from __future__ import annotations

import re

import pytest
from django.test import Client, override_settings

from fleet import observations
from fleet.observations import Part
from identities.models import Identity, Person
from tests.api.conftest import Call, token_of
from tests.conversations import scenes


def test_a_living_process_says_so_without_asking_anybody(client: Client) -> None:
    # no database fixture: a query would fail this test
    assert client.get("/healthz").json() == {"status": "alive"}


class TestReadiness:
    @pytest.fixture(autouse=True)
    def reachable(self, db: None) -> None:
        """The database is there."""

    def test_is_degraded_without_workers_but_ready(self, client: Client) -> None:
        answer = client.get("/readyz")

        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        parts = answer.json()["parts"]
        assert {name: part["state"] for name, part in parts.items()} == {
            "postgres": "up", "schema": "up", "redis": "up", "worker": "down",
        }  # fmt: skip

    def test_is_whole_with_a_worker_that_beats(self, client: Client, ada: Identity, eva: Person) -> None:
        scenes.claimed(scenes.turn_of(scenes.say(account="api:ada", person_id=eva.pk)))

        assert client.get("/readyz").json()["status"] == "ready"

    @override_settings(REDIS_URL="redis://127.0.0.1:1/0")
    def test_is_degraded_without_redis_but_ready(self, client: Client) -> None:
        answer = client.get("/readyz")

        assert answer.status_code == 200
        assert answer.json()["parts"]["redis"]["state"] == "down"

    def test_ends_when_the_database_does_not_answer(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(observations, "database", lambda: Part("postgres", observations.DOWN, "gone"))

        answer = client.get("/readyz")

        assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")

    def test_ends_when_migrations_are_missing(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(observations, "migrations", lambda: Part("schema", observations.DOWN, "3 missing"))

        assert client.get("/readyz").status_code == 503

    def test_tells_strangers_no_sentence(self, client: Client) -> None:
        assert "sentence" not in client.get("/readyz").content.decode()


class TestMetrics:
    def test_count_what_waits_runs_and_ended(self, call: Call, ada: Identity, eva: Person) -> None:
        scenes.answer(scenes.turn_of(scenes.say(account="api:ada", chat_id="1", person_id=eva.pk)))
        scenes.running(scenes.turn_of(scenes.say(account="api:ada", chat_id="2", person_id=eva.pk)))
        scenes.say(account="api:ada", chat_id="2", person_id=eva.pk)

        text = call("GET", "/metrics", token=token_of(eva)).content.decode()

        numbers = dict(re.findall(r"^(fleet_\S+) (\S+)$", text, re.MULTILINE))
        assert numbers['fleet_turns{state="replied"}'] == "1.0"
        assert numbers['fleet_waiting{queue="turns"}'] == "1.0"
        assert numbers["fleet_live_executions"] == "1.0"
        assert float(numbers["fleet_oldest_waiting_seconds"]) >= 0
        assert numbers['fleet_part_up{part="worker"}'] == "1.0"

    def test_are_open_to_this_machine(self, client: Client, db: None) -> None:
        assert client.get("/metrics", REMOTE_ADDR="127.0.0.1").status_code == 200

    def test_are_closed_to_strangers(self, client: Client, db: None) -> None:
        assert client.get("/metrics", REMOTE_ADDR="10.0.0.7").status_code == 401

    def test_do_not_take_a_proxy_on_this_machine_for_this_machine(self, client: Client, db: None) -> None:
        assert client.get("/metrics", REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR="10.0.0.7").status_code == 401
        with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
            assert client.get("/metrics", REMOTE_ADDR="127.0.0.1").status_code == 401
