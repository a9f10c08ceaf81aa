"""The small words: actors, errors, events, the clock, background loops, living through a database restart."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import OperationalError

from fleet.kernel import clock, database, events, exceptions, loops
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry
from tests.factories.identities import PersonFactory


class TestActor:
    @pytest.mark.django_db
    def test_a_person_acts_under_their_sign_in_name(self):
        person = PersonFactory(username="eva")
        assert Actor.person(person) == Actor("person", str(person.pk), "eva")

    def test_an_actor_reads_as_kind_and_name(self):
        assert str(Actor.bot("ada")) == "bot:ada"
        assert str(Actor.system("gateway:telegram")) == "system:gateway:telegram"


class TestErrors:
    def test_an_error_says_what_why_and_what_next_in_one_line(self):
        error = exceptions.Refused("No.", why="It is closed.", next_step="Come back.", code="closed")

        assert str(error) == error.sentence == "No. It is closed. Come back."
        assert error.as_dict() == {"code": "closed", "what": "No.", "why": "It is closed.", "next_step": "Come back."}

    @pytest.mark.parametrize(
        ("kind", "status", "code"),
        [
            (exceptions.Refused, 403, "refused"),
            (exceptions.NotFound, 404, "not_found"),
            (exceptions.Invalid, 400, "invalid"),
            (exceptions.StateConflict, 409, "conflict"),
            (exceptions.Unavailable, 503, "unavailable"),
        ],
    )
    def test_each_kind_has_its_http_status_and_code(self, kind: type[exceptions.FleetError], status: int, code: str):
        assert (kind("x").status, kind("x").code) == (status, code)


class TestEvents:
    def test_a_subscriber_registered_twice_is_called_once(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(events._handlers, "tests.a.b", [])
        heard: list[str] = []

        def hear(event: events.Event) -> None:
            heard.append(event.subject_id)

        events.subscribe("tests.a.b")(hear)
        events.subscribe("tests.a.b")(hear)
        events.publish(events.Event("tests.a.b", Actor.system("x"), "thing", "1"))

        assert heard == ["1"]


@pytest.mark.django_db
def test_the_databases_clock_can_be_moved_by_an_offset():
    JournalEntry.objects.create(event="x", actor_kind="system", subject_kind="thing")
    entries = JournalEntry.objects

    assert entries.filter(at__lte=clock.db_now()).exists()
    assert not entries.filter(at__gt=clock.db_now(dt.timedelta(hours=1))).exists()
    assert entries.filter(at__gt=clock.db_now(-dt.timedelta(hours=1))).exists()
    assert entries.annotate(age=clock.db_age("at")).get().age < dt.timedelta(hours=1)


class TestSurvive:
    def test_a_write_is_repeated_until_the_database_is_back(self):
        answers = iter([OperationalError("gone"), OperationalError("gone"), "written"])

        def write() -> str:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        assert database.survive(write, seconds=30, pause=0) == "written"

    def test_after_its_time_the_last_error_is_raised(self):
        def write() -> None:
            raise OperationalError("gone")

        with pytest.raises(OperationalError, match="gone"):
            database.survive(write, seconds=0, pause=0)

    def test_an_error_that_is_not_about_the_connection_is_raised_at_once(self):
        def write() -> None:
            raise ValueError("wrong")

        with pytest.raises(ValueError, match="wrong"):
            database.survive(write, seconds=30, pause=0)


def test_a_named_loop_is_one_loop():
    async def here() -> int:
        return 42

    assert loops.background("tests") is loops.background("tests")
    assert loops.submit(here(), loop="tests").result(30) == 42
