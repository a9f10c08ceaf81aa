"""A worker and the mock: every way a turn can end, and what others can do to it while it runs."""

import datetime as dt
import queue
import threading
import time
from dataclasses import replace

import pytest
from django.db import transaction

from budgets import actions as budget_actions
from budgets.models import Reservation, TokenLedger
from budgets.states import Metric, Mode, Scope, Unit
from execution import actions, outcomes, queries
from execution.engine import Supervisor, attempt, supervisor, transcript
from execution.models import Execution, OrphanResult, Worker
from execution.providers.mock import provider as mock
from execution.providers.mock import script
from execution.states import Cause, EventKind, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.models import GateDecision
from governance.states import KillMode, KillScope
from tests.execution.running import Run, ended, eventually, running, until, worker
from tests.factories import execution as made
from tests.factories.execution import BY

__all__ = ["worker"]


@pytest.fixture(autouse=True)
def brisk(monkeypatch) -> None:
    monkeypatch.setattr(script, "WORD_SECONDS", 0.001)


def kinds(execution: Execution) -> list[str]:
    return [event.kind for event in queries.events_after(execution.pk)]


def input_posted(execution: Execution) -> int:
    """What the ledger has of the execution's uncached input."""
    rows = TokenLedger.objects.filter(execution_id=execution.pk, unit=Unit.INPUT_UNCACHED)
    return sum(rows.values_list("quantity", flat=True))


class TestOneTurn:
    def test_answers(self, run: Run) -> None:
        row = run(made.queued("Is anybody there?"))
        assert (row.state, row.outcome, row.spend_stage) == (
            ExecutionState.SUCCEEDED,
            OutcomeClass.OK,
            SpendStage.SETTLED,
        )
        assert "Is anybody there?" in row.answer
        assert (row.cost_nano_usd, row.cost_basis) == (0, "free")
        assert row.output > 0 and row.input_uncached > 0
        assert row.provider_version == script.VERSION
        assert Reservation.objects.get(pk=row.reservation_id).state == "settled"

    def test_what_is_read_live_is_what_was_answered(self, run: Run) -> None:
        row = run(made.queued("mock:words=40"))
        events = queries.events_after(row.pk)
        assert "".join(event.payload["text"] for event in events if event.kind == EventKind.TEXT) == row.answer
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert (events[0].kind, events[-1].kind) == (EventKind.STARTED, EventKind.ENDED)

    @pytest.mark.parametrize(("wish", "words"), [("1e12", 200_000), ("inf", 200_000), ("nan", 1), ("-3", 1), ("3", 3)])
    def test_the_mock_says_no_more_than_a_worker_can_hold(self, wish: str, words: int) -> None:
        request = script.Request("", {"words": wish})
        assert len(script._answer(request).split()) == words

    def test_events_are_read_in_pages(self, run: Run) -> None:
        row = run(made.queued("mock:words=40"))
        first, second = queries.events_after(row.pk, 0, 2), queries.events_after(row.pk, 2, 2)
        assert [event.sequence for event in first + second] == [1, 2, 3, 4]

    @pytest.mark.parametrize("outcome", [outcome for outcome in OutcomeClass if outcome != OutcomeClass.OK])
    def test_fails_with_every_outcome_class_and_a_sentence(self, run: Run, outcome: str) -> None:
        row = run(made.queued(f"mock:fail={outcome}"))
        assert row.state != ExecutionState.SUCCEEDED
        assert row.outcome == outcome
        assert row.sentence.startswith("The mock pretends: ") and row.sentence.endswith(".")

    @pytest.mark.parametrize("cause", sorted({row.cause for row in outcomes.TABLE}))
    def test_fails_with_every_cause_that_a_provider_reports(self, run: Run, cause: Cause) -> None:
        row = run(made.queued(f"mock:fail={cause}"))
        assert (row.cause, row.outcome) == (cause, next(row.outcome for row in outcomes.TABLE if row.cause == cause))

    @pytest.mark.parametrize("wish", ["ok", "nonsense", ""])
    def test_says_how_it_can_fail(self, run: Run, wish: str) -> None:
        row = run(made.queued(f"mock:fail={wish} please"))
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.ERROR)
        assert "cannot fail like that" in row.sentence and "billing" in row.sentence

    def test_a_fault_of_ours_is_told_as_such_and_logged(self, run: Run, caplog) -> None:
        row = run(made.queued("mock:crash"))
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.ERROR)
        assert "inside Fleet" in row.sentence
        assert "asked to crash" in caplog.text

    def test_a_tool_call_passes_the_gate(self, run: Run) -> None:
        row = run(made.queued("mock:tool=Bash", identity=made.BotFactory(tools=["Bash"])))
        assert (row.tool_calls, row.state) == (1, ExecutionState.SUCCEEDED)
        assert EventKind.TOOL_DENIED not in kinds(row)

    def test_a_tool_without_a_grant_is_refused_and_remembered(self, run: Run) -> None:
        row = run(made.queued("mock:tool=Bash"))
        denied = next(event for event in queries.events_after(row.pk) if event.kind == EventKind.TOOL_DENIED)
        assert (denied.payload["tool"], denied.payload["target"]) == ("Bash", "echo mock")
        assert "no grant" in denied.payload["reason"]
        assert (
            GateDecision.objects.get(origin_kind="execution", origin_id=str(row.pk)).reason_code == "tool_not_granted"
        )

    def test_the_workspace_is_written_once_and_again_when_the_bot_changes(self, run: Run, settings) -> None:
        bot = made.BotFactory()
        run(made.queued(identity=bot))
        written = settings.FLEET_WORKSPACES / bot.slug / "CLAUDE.md"
        before = written.stat().st_mtime_ns
        run(made.queued(identity=bot))
        assert written.stat().st_mtime_ns == before
        bot.title = "Chief of Tests"
        bot.save()
        run(made.queued(identity=bot))
        assert "Chief of Tests" in written.read_text()


class TestLimits:
    def test_minutes(self, run: Run, monkeypatch) -> None:
        monkeypatch.setattr(attempt.workspace, "prompt_for", _with(attempt.workspace.prompt_for, max_seconds=0))
        row = run(made.queued("mock:hang"))
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.TIMEOUT)
        assert "minutes" in row.sentence

    def test_silence(self, run: Run, settings) -> None:
        settings.FLEET_STALL_SECONDS = 0.1
        row = run(made.queued("mock:hang"))
        assert (row.outcome, "sign of life" in row.sentence) == (OutcomeClass.TIMEOUT, True)

    def test_silence_is_no_stall_while_a_tool_runs(self, run: Run, settings) -> None:
        settings.FLEET_STALL_SECONDS = 0.1
        row = run(made.queued("mock:tool=Bash mock:slow=0.05", identity=made.BotFactory(tools=["Bash"])))
        assert row.outcome == OutcomeClass.OK

    def test_tool_calls(self, run: Run) -> None:
        bot = made.BotFactory(tools=["Bash"], max_tool_calls=0)
        row = run(made.queued("mock:tool=Bash mock:hang", identity=bot))
        assert (row.outcome, "0 tool calls" in row.sentence) == (OutcomeClass.LIMIT, True)

    def test_length_of_the_answer(self, run: Run, monkeypatch) -> None:
        monkeypatch.setattr("execution.engine.halts.LONGEST_ANSWER", 20)
        row = run(made.queued("mock:words=500"))
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.LIMIT)
        assert row.answer.startswith("word1 ")

    def test_budget(self, run: Run) -> None:
        bot = made.BotFactory()
        budget_actions.create_budget(
            name="Tokens of one bot",
            scope_kind=Scope.IDENTITY,
            scope_id=bot.slug,
            metric=Metric.TOKENS,
            limit_amount=10_000,
            mode=Mode.HARD,
            by=BY,
        )
        row = run(made.queued(f"{'x' * 60_000} mock:hang", identity=bot))
        assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.BUDGET)
        assert "budget" in row.sentence


def _with(prompt_for, **fields):
    return lambda execution: replace(prompt_for(execution), **fields)


class TestWorker:
    def test_runs_what_it_is_offered(self, worker: Supervisor) -> None:
        execution = made.queued()
        assert worker.offer(execution.pk, 0)
        assert until(ended, execution).state == ExecutionState.SUCCEEDED

    def test_finds_what_no_hint_has_brought(self, worker: Supervisor) -> None:
        assert until(ended, made.queued()).state == ExecutionState.SUCCEEDED

    def test_leaves_what_it_has_no_slot_for_until_it_has_one(self, worker: Supervisor) -> None:
        worker.slots = 1
        blocking, waiting = made.queued("mock:hang"), made.queued()
        worker.offer(blocking.pk, 0)
        until(running, blocking)
        assert not worker.offer(waiting.pk, 0)
        actions.request_stop(execution_id=blocking.pk, reason="", by=BY)
        assert until(ended, waiting).state == ExecutionState.SUCCEEDED

    def test_stops_what_somebody_wants_stopped(self, worker: Supervisor) -> None:
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        until(running, execution)
        actions.request_stop(execution_id=execution.pk, reason="enough", by=BY)
        row = until(ended, execution)
        assert (row.state, row.outcome, row.sentence) == (
            ExecutionState.STOPPED,
            OutcomeClass.STOPPED,
            "Stopped: enough",
        )

    def test_a_stop_order_ends_it_and_gets_its_line(self, worker: Supervisor) -> None:
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        until(running, execution)
        order = governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="fire drill", by=BY)
        row = until(ended, execution)
        assert (row.state, row.outcome) == (ExecutionState.STOPPED, OutcomeClass.GOVERNANCE)
        assert "fire drill" in row.sentence
        assert governance_queries.receipt(order).alive == ()

    def test_a_stop_order_also_ends_what_came_up_behind_its_back(self, worker: Supervisor, monkeypatch) -> None:
        monkeypatch.setattr("governance.ports.alive_within", lambda *_: iter(()))
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        until(running, execution)
        order = governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="fire drill", by=BY)
        until(ended, execution)
        (line,) = governance_queries.receipt(order).lines
        assert (line.subject, line.expected) == (str(execution.pk), False)

    def test_a_draining_order_lets_it_finish(self, worker: Supervisor) -> None:
        execution = made.queued("mock:slow=1")
        worker.offer(execution.pk, 0)
        until(running, execution)
        governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.DRAIN, reason="fire drill", by=BY)
        assert until(ended, execution).state == ExecutionState.SUCCEEDED

    def test_a_worker_that_lost_the_row_gives_up_and_keeps_what_it_had(self, worker: Supervisor) -> None:
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        until(running, execution)
        Execution.objects.filter(pk=execution.pk).update(epoch=7)
        deadline = time.monotonic() + 30
        while not OrphanResult.objects.filter(execution=execution).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert Execution.objects.get(pk=execution.pk).state == ExecutionState.RUNNING

    def test_what_a_worker_that_lost_the_row_had_used_is_counted_once(self, worker: Supervisor, monkeypatch) -> None:
        monkeypatch.setattr(transcript, "METER_SECONDS", 3600.0)  # it comes to nothing before the row is lost
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        until(lambda row: EventKind.STARTED in kinds(row), execution)
        with transaction.atomic():
            Execution.objects.filter(pk=execution.pk).update(lease_until=clock.db_now(-dt.timedelta(seconds=1)))
            actions.sweep()
        lost = Execution.objects.get(pk=execution.pk)
        assert (lost.state, lost.input_uncached) == (ExecutionState.LOST, 0)

        posted = eventually(lambda: input_posted(execution), "the usage to be in the ledger")
        (orphan,) = OrphanResult.objects.filter(execution=execution)
        assert posted == orphan.details["tokens"]["input_uncached"] > 0
        assert Execution.objects.get(pk=execution.pk).state == ExecutionState.LOST
        # The report was a sign of life of the reservation. There is no other, so it is in doubt again when the lease ends.
        Reservation.objects.filter(pk=execution.reservation_id).update(
            lease_until=clock.db_now(-dt.timedelta(seconds=1))
        )
        budget_actions.sweep_reservations()
        assert Reservation.objects.get(pk=execution.reservation_id).state == "uncertain"

    def test_a_run_that_was_given_up_does_not_hide_the_one_in_its_place(self, worker: Supervisor, monkeypatch) -> None:
        begun: queue.Queue[threading.Event] = queue.Queue()

        def until_told(_attempt: attempt.Attempt) -> None:
            done = threading.Event()
            begun.put(done)
            assert done.wait(60)

        monkeypatch.setattr(attempt.Attempt, "run", until_told)
        execution = made.queued()
        worker.offer(execution.pk, 0)
        first = begun.get(timeout=60)
        actions.requeue(execution=Execution.objects.get(pk=execution.pk), by=BY, why="test")
        worker.offer(execution.pk, 1)
        second = begun.get(timeout=60)
        first.set()
        while len(held := worker._held()) > 1:
            time.sleep(0.02)
        assert [run.execution.epoch for run in held] == [1]
        second.set()

    def test_a_worker_that_was_declared_lost_becomes_another(self, worker: Supervisor) -> None:
        first = worker.worker.pk
        actions.retire_worker(worker_id=first, event="execution.worker.lost", by=BY)
        worker._beat()
        assert worker.worker.pk != first
        assert Worker.objects.get(pk=worker.worker.pk).stopped_at is None

    def test_a_worker_that_cannot_beat_ends_what_it_runs_and_takes_nothing(self, worker: Supervisor) -> None:
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        until(running, execution)
        worker._beat_at -= supervisor.FENCE_SECONDS + 1
        assert not worker.offer(made.queued().pk, 0)
        row = until(ended, execution)
        assert (row.outcome, "could not reach the database" in row.sentence) == (OutcomeClass.ERROR, True)


class TestStoppingAWorker:
    def test_what_runs_may_finish(self, worker: Supervisor) -> None:
        execution = made.queued("mock:slow=0.5")
        worker.offer(execution.pk, 0)
        until(running, execution)
        worker.stop(grace=30)
        assert Execution.objects.get(pk=execution.pk).state == ExecutionState.SUCCEEDED

    def test_what_does_not_finish_is_ended_and_says_so(self, worker: Supervisor) -> None:
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        until(running, execution)
        worker.stop(grace=0)
        row = Execution.objects.get(pk=execution.pk)
        assert (row.state, "restarted" in row.sentence) == (ExecutionState.STOPPED, True)

    def test_what_has_not_begun_is_given_back(self, worker: Supervisor, monkeypatch) -> None:
        arrived, may_go = threading.Event(), threading.Event()

        def held(self) -> None:
            arrived.set()
            may_go.wait(30)

        monkeypatch.setattr(mock.MockRun, "prepare", held)
        monkeypatch.setattr(mock.MockRun, "kill", lambda self: may_go.set() or True)
        execution = made.queued()
        worker.offer(execution.pk, 0)
        assert arrived.wait(30)
        worker.stop(grace=0)
        row = Execution.objects.get(pk=execution.pk)
        assert (row.state, row.spend_stage) == (ExecutionState.QUEUED, SpendStage.RESERVED)

    def test_what_begins_at_that_moment_goes_on_without_it(self, worker: Supervisor, monkeypatch) -> None:
        """Its gate is open in the database, and it does not know it yet."""
        opened, asked, may_go = threading.Event(), threading.Event(), threading.Event()
        release, leave = actions.release, attempt.Attempt.leave

        def open_slowly(**gate):
            texts = release(**gate)
            opened.set()
            assert may_go.wait(30)
            return texts

        def ask(one, **otherwise):
            asked.set()
            return leave(one, **otherwise)

        monkeypatch.setattr(actions, "release", open_slowly)
        monkeypatch.setattr(attempt.Attempt, "leave", ask)
        monkeypatch.setattr(mock.MockProvider, "capabilities", replace(mock.MockProvider.capabilities, adopts=True))
        execution = made.queued("mock:hang")
        worker.offer(execution.pk, 0)
        assert opened.wait(30)
        stopping = threading.Thread(target=worker.stop, kwargs={"grace": 0})
        stopping.start()
        assert asked.wait(30)
        may_go.set()
        stopping.join(60)
        row = Execution.objects.get(pk=execution.pk)
        assert (row.state, row.sentence) == (ExecutionState.RUNNING, "")

    def test_takes_nothing_new(self, worker: Supervisor) -> None:
        worker.refuse_work()
        assert not worker.offer(made.queued().pk, 0)
