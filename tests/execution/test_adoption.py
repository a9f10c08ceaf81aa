"""A worker between the database, which has given it a turn, and the shim, which has not yet: it ends nothing that is not its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError

from budgets.models import Reservation
from execution import actions
from execution.engine import attempt, supervisor, workspace
from execution.engine.adoption import Adoption
from execution.engine.standby import Standby
from execution.events import WORKER_STOPPED
from execution.models import Execution
from execution.ports import ProcessFacts, Prompt, Run, UserText
from execution.providers import registry
from execution.shim import processes
from execution.states import EventKind, ExecutionState, SpendStage
from tests.factories import execution as made
from tests.factories.execution import BY


@pytest.fixture
def process() -> Iterator[ProcessFacts]:
    """What another worker has left."""
    with subprocess.Popen(["sleep", "600"]) as left:
        yield processes.facts(left.pid, "0" * 32)
        left.kill()


@pytest.fixture
def adoption(process: ProcessFacts) -> Adoption:
    """The database has given the turn to this worker."""
    row = made.running(made.queued(provider="claude"), process=process)
    actions.retire_worker(worker_id=row.owner_id, event=WORKER_STOPPED, by=BY)
    execution = actions.adopt(execution_id=row.pk, epoch=row.epoch, worker=made.WorkerFactory(), by=BY)
    return Adoption(execution, by=BY, standby=Standby(1))


def is_alive(process: ProcessFacts) -> bool:
    return processes.is_alive(process.pid, process.started_at)


def test_whoever_has_lost_the_row_to_another_worker_leaves_the_process_alone(
    adoption: Adoption, process: ProcessFacts
) -> None:
    other = {"epoch": adoption.execution.epoch + 1, "owner": made.WorkerFactory()}
    Execution.objects.filter(pk=adoption.execution.pk).update(**other)
    adoption.fence()
    adoption.run()
    assert is_alive(process)
    assert Execution.objects.get(pk=adoption.execution.pk).state == ExecutionState.RUNNING


def test_whom_the_shim_refuses_because_another_worker_has_it_leaves_the_process_alone(
    adoption: Adoption, process: ProcessFacts
) -> None:
    other = {"epoch": adoption.execution.epoch + 1, "owner": made.WorkerFactory()}
    Execution.objects.filter(pk=adoption.execution.pk).update(**other)
    adoption.run()  # nobody opens the door
    assert is_alive(process)
    assert Execution.objects.get(pk=adoption.execution.pk).state == ExecutionState.RUNNING


def test_what_nobody_can_go_on_with_is_ended_and_closed(adoption: Adoption, process: ProcessFacts) -> None:
    adoption.run()
    row = Execution.objects.get(pk=adoption.execution.pk)
    assert (row.state, row.process_gone_at is not None, is_alive(process)) == (ExecutionState.LOST, True, False)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", [OperationalError("the server is away"), ValueError("a fault compiling the bot")])
class TestAReadingThatFails:
    @pytest.fixture(autouse=True)
    def failing(self, adoption: Adoption, fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        """What its provider has to know cannot be read, however long it is tried. Part of its answer is written already."""
        actions.record_events(
            execution=adoption.execution, first_sequence=1, lines=[(EventKind.TEXT, {"text": "Once upon"})]
        )

        def prompt_for(*_: Any, **__: Any) -> Prompt:
            raise fault

        monkeypatch.setattr(workspace, "prompt_for", prompt_for)
        monkeypatch.setattr(attempt, "PAID_SURVIVE_SECONDS", 0.0)

    def test_ends_the_turn_at_once_and_says_what_it_had(self, adoption: Adoption, process: ProcessFacts) -> None:
        adoption.run()
        row = Execution.objects.get(pk=adoption.execution.pk)
        assert (row.state, row.answer, row.process_gone_at is not None) == (ExecutionState.LOST, "Once upon", True)
        assert "Please ask again" in row.sentence
        assert not is_alive(process)

    def test_does_not_call_free_what_may_have_been_paid(self, adoption: Adoption) -> None:
        adoption.run()
        row = Execution.objects.get(pk=adoption.execution.pk)
        assert (row.spend_stage, row.cost_nano_usd) == (SpendStage.UNKNOWN, None)
        assert Reservation.objects.get(pk=row.reservation_id).state == "uncertain"

    def test_leaves_alone_what_another_worker_has_by_then(self, adoption: Adoption, process: ProcessFacts) -> None:
        other = {"epoch": adoption.execution.epoch + 1, "owner": made.WorkerFactory()}
        Execution.objects.filter(pk=adoption.execution.pk).update(**other)
        adoption.run()
        assert is_alive(process)
        assert Execution.objects.get(pk=adoption.execution.pk).state == ExecutionState.RUNNING


def test_a_worker_that_had_no_database_for_long_still_takes_over_what_is_its_own(
    adoption: Adoption, process: ProcessFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends what it runs; of this it runs nothing yet."""
    mock = registry.get("mock")

    def adopt(prompt: Prompt, _: ProcessFacts, texts: tuple[UserText, ...], **given: Any) -> Run:
        run = mock.open(prompt)
        run.prepare()
        run.release(texts, **given)
        return run

    monkeypatch.setattr(registry.get("claude"), "adopt", adopt)
    adoption.halt(supervisor._FENCED)
    adoption.run()
    row = Execution.objects.get(pk=adoption.execution.pk)
    assert (row.state, bool(row.answer)) == (ExecutionState.SUCCEEDED, True), row.sentence
