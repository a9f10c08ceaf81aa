"""Who hears of an execution first, and for how long it is left to that worker."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from execution import actions
from execution.models import Execution, HeldProcess, Worker
from execution.states import ExecutionState
from fleet.kernel import clock, queue
from tests.execution.running import eventually
from tests.factories import execution as made
from tests.factories.execution import BY

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def workers() -> list[Worker]:
    """Two that read hints of their own."""
    return [made.WorkerFactory(listens=True, slots=2) for _ in range(2)]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The queues to which a run was hinted, in order; None is the common one."""
    queues: list[str | None] = []

    def publish(job: str, arguments: object, *, queue: str | None = None) -> bool:
        queues.append(queue)
        return True

    monkeypatch.setattr(queue, "publish", publish)
    return queues


def hold(worker: Worker) -> str:
    """Let the worker hold a process, and return its session."""
    now = clock.now()
    row = HeldProcess.objects.create(
        worker=worker, identity=made.BotFactory(), session_id=str(uuid.uuid4()), turns=1, began_at=now, idle_since=now
    )
    return row.session_id


def claim(execution: Execution, worker: Worker) -> Execution | None:
    return actions.claim(execution_id=execution.pk, epoch=execution.epoch, worker_id=worker.pk, by=BY)


def test_the_holder_of_the_session_hears_of_it_first(workers, told) -> None:
    for worker in workers:
        execution = made.queued(session_id=hold(worker))
        assert execution.preferred_worker_id == worker.pk
        assert told[-1] == actions.queue_of(worker.pk)


def test_a_session_that_nobody_holds_is_always_for_the_same_worker(workers, told) -> None:
    session = str(uuid.uuid4())
    assert len({made.queued(session_id=session).preferred_worker_id for _ in range(5)}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"stopped_at": clock.now()},
        {"draining_at": clock.now()},
        {"listens": False},
        {"slots": 0},
        {"beat_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_holder_that_cannot_take_it_is_not_asked(workers, told, changes) -> None:
    session = hold(workers[0])
    Worker.objects.filter(pk=workers[0].pk).update(**changes)
    assert made.queued(session_id=session).preferred_worker_id in (workers[1].pk, None)


def test_one_worker_alone_reads_the_common_queue(told) -> None:
    made.queued(session_id=hold(made.WorkerFactory(listens=True, slots=2)))
    assert told == [None]


class TestTheClaim:
    def test_is_the_holders_alone_at_first_and_anybodys_later(self, workers, told) -> None:
        execution = made.queued(session_id=hold(workers[0]))
        assert claim(execution, workers[1]) is None
        Execution.objects.filter(pk=execution.pk).update(queued_at=clock.now() - dt.timedelta(seconds=1))
        assert claim(execution, workers[1]).owner_id == workers[1].pk

    def test_is_the_holders_at_once(self, workers, told) -> None:
        assert claim(made.queued(session_id=hold(workers[0])), workers[0]).owner_id == workers[0].pk

    @pytest.mark.parametrize("why", ["stopped_at", "draining_at"])
    def test_is_anybodys_when_the_holder_is_over_or_drained(self, workers, told, why) -> None:
        execution = made.queued(session_id=hold(workers[0]))
        Worker.objects.filter(pk=workers[0].pk).update(**{why: clock.now()})
        assert claim(execution, workers[1]) is not None

    def test_is_nobodys_who_is_drained(self, workers, told) -> None:
        Worker.objects.update(draining_at=clock.now())
        assert claim(made.queued(), workers[0]) is None
        assert Execution.objects.get().state == ExecutionState.QUEUED


class TestPassingOn:
    def test_a_holder_without_a_slot_tells_the_other_at_once(self, workers, told) -> None:
        execution = made.queued(session_id=hold(workers[0]))
        actions.pass_on(execution_id=execution.pk, epoch=execution.epoch, worker_id=workers[0].pk)
        assert told[-1] == actions.queue_of(workers[1].pk)
        assert claim(execution, workers[1]) is not None

    def test_what_was_not_left_to_it_is_not_told_again(self, workers, told) -> None:
        execution = made.queued(session_id=hold(workers[0]))
        actions.pass_on(execution_id=execution.pk, epoch=execution.epoch, worker_id=workers[1].pk)
        assert told == [actions.queue_of(workers[0].pk)]

    def test_what_nobody_claims_is_told_to_the_other_by_itself(self, workers, told) -> None:
        made.queued(session_id=hold(workers[0]))
        eventually(lambda: len(told) == 2, "the second hint")
        assert told[-1] == actions.queue_of(workers[1].pk)
