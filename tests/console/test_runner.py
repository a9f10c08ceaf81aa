"""The Runner page: workers with honest ages, what runs and waits, what is kept ready, and who may end it."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.test import Client

from execution import actions
from execution.models import Execution, HeldProcess, Worker
from execution.states import EventKind
from fleet.console.screens.runner import PAGE, runner_page
from fleet.kernel import clock
from fleet.kernel.models import JournalEntry
from identities.models import Identity
from tests.console.page import text_of
from tests.factories import execution as made
from tests.factories.execution import BY

pytestmark = pytest.mark.usefixtures("ada")


@pytest.fixture
def worker(db: None) -> Worker:
    return made.WorkerFactory(host="here", slots=2, version="0.1.0")


def held(worker: Worker, **changes: object) -> HeldProcess:
    now = clock.now()
    facts = {"worker": worker, "identity": Identity.objects.first(), "provider": "claude", "model": "claude-haiku-4-5"}
    times = {"began_at": now - dt.timedelta(minutes=5), "idle_since": now - dt.timedelta(minutes=2)}
    more = {"session_id": str(uuid.uuid4()), "turns": 3, "pid": 4711, "pid_started_at": 1.0}
    return HeldProcess.objects.create(**{**facts, **times, **more, **changes})


def states() -> list[str]:
    return [row.status.word for row in runner_page().workers]


def test_an_empty_house_says_which_kind_of_empty(operator: Client) -> None:
    page = text_of(operator.get("/runner/"))
    assert "No worker is alive" in page
    assert "Nothing runs and nothing waits" in page
    assert "No process is kept ready" in page


def test_what_a_provider_waits_for_stands_beside_its_state_until_it_goes_on(worker: Worker, operator: Client) -> None:
    row = made.running(worker=worker)
    told = "Claude asks us to wait; trying again at 14:05:00 UTC (attempt 3 of 10)."
    waits = (EventKind.RETRYING, {"text": told, "at": None, "cause": "rate_limit"})
    beside = (EventKind.RATE_LIMIT, {"status": "rejected", "resets_at": None, "limit": ""})
    after = actions.record_events(execution=row, first_sequence=1, lines=[waits, beside], through=0)
    assert told in text_of(operator.get("/runner/"))
    actions.record_events(execution=row, first_sequence=after, lines=[(EventKind.TEXT, {"text": "Good"})], through=0)
    assert "trying again" not in text_of(operator.get("/runner/"))


def test_a_worker_is_what_was_last_seen_of_it(worker: Worker) -> None:
    assert states() == ["Ready"]
    made.running(worker=worker)
    assert states() == ["Working"]
    made.running(worker=worker)
    assert states() == ["Full"]
    actions.set_draining(worker_id=worker.pk, draining=True, by=BY)
    assert states() == ["Draining"]
    Worker.objects.update(beat_at=clock.now() - dt.timedelta(seconds=40))
    assert states() == ["Unknown"]
    actions.retire_worker(worker_id=worker.pk, event="execution.worker.lost", by=BY)
    assert states() == []


def test_what_runs_and_waits_is_listed_with_its_worker(operator: Client, worker: Worker) -> None:
    made.running(worker=worker)
    made.queued()
    rows = runner_page().executions
    assert [(row.status.word, bool(row.worker)) for row in rows] == [("Running", True), ("Queued", False)]
    assert "None yet" in text_of(operator.get("/runner/"))


def test_an_execution_whose_worker_has_ended_is_not_called_running(worker: Worker) -> None:
    execution = made.running(worker=worker)
    assert [row.status.word for row in runner_page().executions if row.id == execution.pk] == ["Running"]
    Worker.objects.filter(pk=worker.pk).update(stopped_at=clock.now())
    assert [row.status.word for row in runner_page().executions] == ["Waits for another worker"]


def test_an_execution_whose_lease_is_over_is_unknown(worker: Worker) -> None:
    execution = made.running(worker=worker)
    Execution.objects.filter(pk=execution.pk).update(lease_until=clock.now() - dt.timedelta(seconds=1))
    assert [row.status.word for row in runner_page().executions] == ["Unknown"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "Warm"),
        ({"turns": 0}, "Started ahead"),
        ({"turns": 0, "conversation_id": 7}, "Taken"),
        ({"end_requested_at": clock.now()}, "Ending"),
    ],
    ids=["warm", "started ahead", "taken", "ending"],
)
def test_a_process_says_what_it_waits_for(worker: Worker, changes: dict[str, object], word: str) -> None:
    held(worker, **changes)
    assert [row.status.word for row in runner_page().processes] == [word]


def test_one_that_answers_and_one_whose_worker_is_over_say_so(worker: Worker) -> None:
    process = held(worker)
    made.running(made.queued(session_id=process.session_id), worker=worker)
    assert [row.status.word for row in runner_page().processes] == ["Answering"]
    Worker.objects.filter(pk=worker.pk).update(stopped_at=clock.now())
    assert [row.status.word for row in runner_page().processes] == ["Not seen gone yet"]


def test_memory_that_was_not_weighed_is_no_zero(operator: Client, worker: Worker) -> None:
    process = held(worker)
    assert "not weighed yet" in text_of(operator.get("/runner/"))
    actions.note_weights(worker_id=worker.pk, megabytes={process.pk: 281})
    assert "281 MB" in text_of(operator.get("/runner/"))


def test_lists_are_paged_by_key(operator: Client, worker: Worker) -> None:
    now = clock.now()
    for number in range(PAGE + 2):
        held(worker, pid=5000 + number, idle_since=now - dt.timedelta(seconds=1000 - number))
    first = operator.get("/runner/")
    last = str(5000 + PAGE + 1)
    assert last not in text_of(first)
    assert last in text_of(operator.get(first.context["process_pager"]["next_url"]))
    assert operator.get("/runner/?processes=999999999999999999").status_code == 200
    assert operator.get("/runner/?processes=x").status_code == 400


def test_a_live_region_gets_its_part_only(operator: Client) -> None:
    fragment = operator.get("/runner/", headers={"HX-Request": "true"}).content.decode()
    assert fragment.lstrip().startswith('<div class="stack" id="runner-now"')


def test_an_operator_ends_a_process_and_the_journal_says_who(operator: Client, worker: Worker) -> None:
    process = held(worker)
    answer = operator.post(f"/runner/processes/{process.pk}/end/", follow=True)
    assert "is being ended" in text_of(answer)
    entry = JournalEntry.objects.get(event="execution.process.end_requested")
    assert (entry.actor_name, entry.subject_id) == ("operator", str(process.pk))
    assert actions.why_to_end(worker_id=worker.pk) == {process.pk: "operator ended it"}


def test_a_worker_is_not_drained_by_nonsense(operator: Client, worker: Worker) -> None:
    for nonsense in ({"drain": "nonsense"}, {}):
        told = operator.post(f"/runner/workers/{worker.pk}/", nonsense, follow=True)
        assert "Nothing was changed" in told.content.decode()
    assert Worker.objects.get().draining_at is None


def test_an_operator_drains_a_worker_and_lets_it_work_again(operator: Client, worker: Worker) -> None:
    operator.post(f"/runner/workers/{worker.pk}/", {"drain": "1"})
    assert Worker.objects.get().draining_at is not None
    assert made.actions.claim(execution_id=made.queued().pk, epoch=0, worker_id=worker.pk, by=BY) is None
    operator.post(f"/runner/workers/{worker.pk}/", {"drain": "0"})
    assert Worker.objects.get().draining_at is None


@pytest.mark.parametrize("address", ["processes/{id}/end/", "workers/{id}/"])
def test_what_is_gone_is_told_and_not_an_error(operator: Client, address: str) -> None:
    answer = operator.post(f"/runner/{address.format(id=uuid.uuid4())}", {"drain": "1"}, follow=True)
    assert answer.status_code == 200
    assert "Look at the Runner page as it is now" in text_of(answer)


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("approver", False), ("operator", True), ("admin", True)])
def test_who_may_steer_sees_the_buttons_and_nobody_else_can(signed_in, worker: Worker, role: str, may: bool) -> None:
    process = held(worker)
    client = signed_in(role)
    page = text_of(client.get("/runner/"))
    assert ("End now" in page, "Drain" in page) == (may, may)
    assert (client.post(f"/runner/processes/{process.pk}/end/").status_code == 302) is may
    assert (client.post(f"/runner/workers/{worker.pk}/").status_code == 302) is may
