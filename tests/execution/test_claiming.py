"""Who may start an execution, and when its spend gate opens."""

import datetime as dt
import os
import threading

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from execution import actions
from execution.engine import workspace
from execution.models import Execution, Worker
from execution.shim import processes
from execution.states import ExecutionState, OutcomeClass, SpendStage
from fleet.kernel.exceptions import Fenced, Refused
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.models import StopLine
from governance.states import KillMode, KillScope
from tests.factories import execution as made
from tests.factories.execution import BY

MOST_QUERIES_BEFORE_THE_PROMPT = 8


def statements(captured: CaptureQueriesContext) -> list[str]:
    """What was asked of the database, without the frame of transactions."""
    frame = ("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT")
    return [query["sql"] for query in captured.captured_queries if not query["sql"].startswith(frame)]


def stop(scope: KillScope, scope_id: str = "", mode: KillMode = KillMode.STOP):
    return governance_actions.stop(scope=scope, scope_id=scope_id, mode=mode, reason="fire drill", by=BY)


class TestClaim:
    def test_takes_what_is_queued(self) -> None:
        worker = made.WorkerFactory()
        execution = made.claimed(worker=worker)
        assert (execution.state, execution.owner_id, execution.attempt) == (ExecutionState.STARTING, worker.pk, 1)
        assert execution.lease_until - execution.claimed_at == dt.timedelta(seconds=30)

    def test_a_doubled_hint_finds_nothing(self) -> None:
        execution = made.claimed()
        assert actions.claim(execution_id=execution.pk, epoch=0, worker_id=made.WorkerFactory().pk, by=BY) is None

    def test_an_old_hint_finds_nothing(self) -> None:
        execution = made.claimed()
        actions.requeue(execution=execution, by=BY, why="test")
        worker = made.WorkerFactory()
        assert actions.claim(execution_id=execution.pk, epoch=0, worker_id=worker.pk, by=BY) is None
        assert actions.claim(execution_id=execution.pk, epoch=1, worker_id=worker.pk, by=BY) is not None

    def test_a_hint_for_what_never_was_finds_nothing(self) -> None:
        assert actions.claim(execution_id=4711, epoch=0, worker_id=made.WorkerFactory().pk, by=BY) is None

    def test_respects_how_much_a_bot_may_do_at_once(self) -> None:
        bot = made.BotFactory(concurrency=1)
        first, second = made.queued(identity=bot), made.queued(identity=bot)
        made.claimed(first)
        worker = made.WorkerFactory()
        assert actions.claim(execution_id=second.pk, epoch=0, worker_id=worker.pk, by=BY) is None
        assert Execution.objects.get(pk=second.pk).state == ExecutionState.QUEUED

    @pytest.mark.parametrize("mode", KillMode)
    def test_an_order_that_holds_it_back_ends_it_unspent(self, mode: KillMode) -> None:
        execution = made.queued()
        order = stop(KillScope.FLEET, mode=mode)
        assert actions.claim(execution_id=execution.pk, epoch=0, worker_id=made.WorkerFactory().pk, by=BY) is None
        row = Execution.objects.get(pk=execution.pk)
        assert (row.state, row.outcome) == (ExecutionState.STOPPED, OutcomeClass.GOVERNANCE)
        assert row.spend_stage == SpendStage.NONE
        assert "fire drill" in row.sentence
        assert not governance_queries.open_lines(order).exists()

    def test_an_order_for_another_bot_does_not_matter(self) -> None:
        execution, other = made.queued(), made.BotFactory()
        stop(KillScope.IDENTITY, other.slug)
        assert made.claimed(execution).kill_epoch == 1

    def test_an_order_lifted_since_still_holds_back_what_was_admitted_before_it(self) -> None:
        execution = made.queued()
        order = stop(KillScope.FLEET)
        governance_actions.lift(order=order, reason="all clear", by=BY)
        assert actions.claim(execution_id=execution.pk, epoch=0, worker_id=made.WorkerFactory().pk, by=BY) is None
        assert Execution.objects.get(pk=execution.pk).state == ExecutionState.STOPPED

    @pytest.mark.parametrize("lifted", [False, True])
    def test_an_order_for_its_conversation_holds_it_back(self, lifted: bool) -> None:
        execution = made.queued(conversation_id=12)
        order = stop(KillScope.CONVERSATION, "12")
        if lifted:
            governance_actions.lift(order=order, reason="all clear", by=BY)
        assert actions.claim(execution_id=execution.pk, epoch=0, worker_id=made.WorkerFactory().pk, by=BY) is None
        assert Execution.objects.get(pk=execution.pk).outcome == OutcomeClass.GOVERNANCE

    def test_an_order_for_another_conversation_does_not_matter(self) -> None:
        execution = made.queued(conversation_id=12)
        stop(KillScope.CONVERSATION, "13")
        assert made.claimed(execution).kill_epoch == 1

    def test_an_order_whose_receipt_names_it_holds_it_back(self) -> None:
        execution = made.queued()
        order = stop(KillScope.CONVERSATION, "12")
        StopLine.objects.create(order=order, kind="process", subject=str(execution.pk))
        assert actions.claim(execution_id=execution.pk, epoch=0, worker_id=made.WorkerFactory().pk, by=BY) is None
        assert Execution.objects.get(pk=execution.pk).outcome == OutcomeClass.GOVERNANCE


@pytest.mark.django_db(transaction=True)
class TestRace:
    def test_of_many_workers_exactly_one_claims(self) -> None:
        execution = made.queued()
        assert sum(race(lambda worker: _claims(execution.pk, worker), of=8)) == 1

    def test_a_bot_is_never_busier_than_it_may_be(self) -> None:
        bot = made.BotFactory(concurrency=2)
        waiting = [made.queued(identity=bot).pk for _ in range(6)]
        assert sum(race(lambda worker: _claims(waiting.pop(), worker), of=6)) == 2


def _claims(execution_id: int, worker: Worker) -> bool:
    return actions.claim(execution_id=execution_id, epoch=0, worker_id=worker.pk, by=BY) is not None


def race(step, *, of: int) -> list[bool]:
    """Let so many workers take the step at the same moment, each with a connection of its own."""
    workers = [made.WorkerFactory() for _ in range(of)]
    start, results = threading.Barrier(of), []

    def run(worker: Worker) -> None:
        connection.ensure_connection()
        start.wait(30)
        try:
            results.append(step(worker))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == of
    return results


class TestRelease:
    def test_commits_that_it_runs_and_which_process(self) -> None:
        process = processes.facts(os.getpid())
        execution = made.claimed()
        actions.release(execution=execution, process=process, by=BY)
        row = Execution.objects.get(pk=execution.pk)
        assert (row.state, row.spend_stage) == (ExecutionState.RUNNING, SpendStage.RELEASED)
        assert (row.pid, row.pid_started_at, row.boot_id) == (process.pid, process.started_at, process.boot_id)

    def test_may_be_repeated_after_a_reply_that_was_lost(self) -> None:
        execution = made.claimed()
        first = actions.release(execution=execution, process=None, by=BY)
        assert actions.release(execution=execution, process=None, by=BY) == first

    def test_is_refused_when_somebody_wants_it_stopped(self) -> None:
        execution = made.claimed()
        actions.request_stop(execution_id=execution.pk, reason="enough", by=BY)
        with pytest.raises(Refused, match="enough") as refusal:
            actions.release(execution=execution, process=None, by=BY)
        assert refusal.value.code == "stopped"

    def test_is_refused_by_an_order_given_since_the_claim(self) -> None:
        execution = made.claimed()
        stop(KillScope.IDENTITY, execution.identity.slug)
        with pytest.raises(Refused, match="fire drill") as refusal:
            actions.release(execution=execution, process=None, by=BY)
        assert refusal.value.code == "killed"

    def test_goes_on_after_an_order_for_another_bot(self) -> None:
        execution = made.claimed()
        stop(KillScope.IDENTITY, made.BotFactory().slug)
        assert actions.release(execution=execution, process=None, by=BY)

    def test_a_worker_that_lost_it_is_fenced(self) -> None:
        execution = made.claimed()
        actions.requeue(execution=execution, by=BY, why="test")
        with pytest.raises(Fenced):
            actions.release(execution=execution, process=None, by=BY)

    def test_the_way_to_the_prompt_is_short(self) -> None:
        worker = made.WorkerFactory()
        bot = made.BotFactory()
        workspace.prompt_for(
            made.claimed(made.queued(identity=bot))
        )  # its directory is there, as it is at every turn but the first
        execution = made.queued(identity=bot)
        with CaptureQueriesContext(connection) as captured:
            claimed = made.claimed(execution, worker=worker)
            workspace.prompt_for(claimed)
            actions.release(execution=claimed, process=None, by=BY)
        assert len(statements(captured)) <= MOST_QUERIES_BEFORE_THE_PROMPT, "\n".join(statements(captured))


class TestRequeue:
    def test_what_spent_nothing_is_given_back_for_free(self) -> None:
        execution = made.claimed()
        assert actions.requeue(execution=execution, by=BY, why="its worker was stopped")
        row = Execution.objects.get(pk=execution.pk)
        assert (row.state, row.epoch, row.owner_id) == (ExecutionState.QUEUED, 1, None)
        assert row.spend_stage == SpendStage.RESERVED

    def test_what_was_released_is_never_given_back(self) -> None:
        execution = made.running()
        assert not actions.requeue(execution=execution, by=BY, why="test")
        assert Execution.objects.get(pk=execution.pk).state == ExecutionState.RUNNING

    def test_what_brings_down_its_worker_each_time_fails_in_the_end(self) -> None:
        execution = made.queued()
        for _ in range(5):
            execution.refresh_from_db()
            actions.requeue(execution=made.claimed(execution), by=BY, why="its worker was lost")
        execution.refresh_from_db()
        assert (execution.state, execution.outcome) == (ExecutionState.FAILED, OutcomeClass.ERROR)
        assert "5 attempts" in execution.sentence
