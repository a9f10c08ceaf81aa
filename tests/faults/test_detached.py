"""A worker goes away in the middle of a paid turn, and another one goes on with it: one answer, one process, one bill."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from django.conf import settings as django_settings
from django.db.models import Sum

from budgets.models import Reservation, TokenLedger
from execution import actions, queries
from execution.models import Execution, OrphanResult, Worker
from execution.shim import processes
from execution.states import EventKind, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock, queue
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.states import KillMode, KillScope
from identities.models import ToolGrant
from tests.emulators import agents
from tests.emulators.gate import Gate
from tests.emulators.model import ModelEmulator, Usage
from tests.execution import fake_cli
from tests.execution.running import CeleryWorker, database_url, ended, eventually, running, until
from tests.factories import execution as made
from tests.factories.execution import BY

pytestmark = [pytest.mark.timeout(600), pytest.mark.django_db(transaction=True), pytest.mark.realcli]

STORY = "Once upon a time there was a bot that had all the time in the world, and a worker that had none of it."
SPENT = Usage().output  # by every answer of the emulated model
Workers = Callable[..., CeleryWorker]


@dataclass(frozen=True)
class Way:
    """A real CLI to think with: how a worker is told of it, and how its model runs commands."""

    provider: str
    model: str = "claude-haiku-4-5"
    shell: str = "Bash"
    command: str = "command"
    events: int = 6  # of the model's answer, after which some of its text is there

    def environment(self, url: str, directory: Path) -> dict[str, str]:
        """What a worker has to have in its environment."""
        if self.provider == "codex":
            return {"OPENAI_API_KEY": "sk-canary-not-a-key", "OPENAI_BASE_URL": f"{url}/v1"}
        if self.provider == "claude":
            return {"ANTHROPIC_API_KEY": "sk-ant-canary-not-a-key", "ANTHROPIC_BASE_URL": url}
        declared = {name: said for name, said in asdict(agents.claude_agent(url)).items() if name != "name"}
        (directory / "acp.json").write_text(json.dumps({self.provider: declared}))
        return {"FLEET_ACP_AGENTS": str(directory / "acp.json"), "AGENT_KEY": "sk-ant-canary-not-a-key"}

    def queued(self, text: str, **fields: object) -> Execution:
        """A turn that waits for a worker."""
        return made.queued(text, provider=self.provider, model=self.model, **fields)

    def hold(self, model: ModelEmulator) -> Gate:
        """Let the model stop in the middle of its story until the gate is released."""
        return model.hold("go", STORY, after_events=self.events)

    def run_command(self, model: ModelEmulator, command: str, *, then: str) -> None:
        """Let the model ask for this command when it is told to go."""
        model.call_tool("go", self.shell, {self.command: command}, then=then)


WAYS = {
    "claude": Way("claude"),
    "codex": Way("codex", model="gpt-5.6-luna", shell="exec_command", command="cmd", events=9),
    "acp": Way("agent"),
}
with_every_cli = pytest.mark.parametrize("way", WAYS, indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    """Claude, unless the test says otherwise."""
    return WAYS[getattr(request, "param", "claude")]


@pytest.fixture(autouse=True)
def table() -> None:
    """Prices, budgets and policy."""
    queue._silent_until = 0.0
    made.set_the_table()


@pytest.fixture
def workers(tmp_path: Path, model_emulator: ModelEmulator, way: Way) -> Iterator[Workers]:
    """Start Celery workers that answer with the real CLI, from one `var`; whatever they leave is ended with the test."""
    started: list[CeleryWorker] = []

    def start(**environment: str) -> CeleryWorker:
        credential = way.environment(model_emulator.url, tmp_path)
        quick = {"FLEET_WORKER_GRACE_SECONDS": "0.2", "FLEET_WARM_PROCESSES": "0"}
        started.append(CeleryWorker(tmp_path / "var", **credential, **{**quick, **environment}).start())
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGCONT)
        worker.stop()


def said(execution: Execution) -> str:
    """The text of an execution's events, as a reader sees it."""
    return "".join(
        event.payload["text"] for event in queries.events_after(execution.pk) if event.kind == EventKind.TEXT
    )


def has_text(row: Execution) -> bool:
    return bool(said(row))


def check_answered_once(execution: Execution, model: ModelEmulator, answer: str, *, asked: int = 1) -> Execution:
    """It succeeded, is written without gap or repetition, was asked and paid once, and nothing of it is left."""
    row = until(ended, execution)
    assert (row.state, row.answer, row.attempt) == (ExecutionState.SUCCEEDED, answer, 1), row.sentence
    events = queries.events_after(row.pk)
    assert said(row) == answer
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len([event for event in events if event.kind == EventKind.STARTED]) == 1
    assert len(model.requests) == asked
    metered = TokenLedger.objects.filter(execution_id=row.pk, unit="output").aggregate(Sum("quantity"))
    assert (row.output, metered["quantity__sum"]) == (SPENT * asked, SPENT * asked)
    assert row.spend_stage == SpendStage.SETTLED
    assert Reservation.objects.get(pk=row.reservation_id).state == "settled"
    eventually(lambda: not processes.is_alive(row.pid, row.pid_started_at), "its shim to be gone")
    return row


def owner_of(execution: Execution) -> int:
    """The process of the worker that has it."""
    return Execution.objects.get(pk=execution.pk).owner.pid


def kill_owner(execution: Execution) -> None:
    """End the worker that has it as a crash would; return when it is gone, which takes a moment after the signal."""
    owner = processes.facts(owner_of(execution))
    os.kill(owner.pid, signal.SIGKILL)
    eventually(lambda: not processes.is_alive(owner.pid, owner.started_at), "the killed worker is gone")


def cli_of(row: Execution) -> list[psutil.Process]:
    """The walls that its CLI lives in; the shim's other child is the proxy."""
    return [process for process in psutil.Process(row.pid).children() if process.name() == "bwrap"]


def adopted(row: Execution) -> bool:
    """Another worker has it."""
    return row.epoch == 1


def alive(tree: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that only waits to be collected does not."""
    return [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def locked(table: str) -> Iterator[None]:
    """Nobody reads or writes this table until the end of the block."""
    with psycopg.connect(database_url()) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def wait_blocked_on(table: str) -> None:
    """Somebody waits for this table."""

    def blocked() -> bool:
        with psycopg.connect(database_url()) as connection:
            query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass)"
            return bool(connection.execute(query, [table]).fetchone()[0])

    eventually(blocked, f"somebody to wait for {table}")


@with_every_cli
def test_a_stopped_worker_leaves_its_turn_and_the_next_one_goes_on(
    workers: Workers, model_emulator: ModelEmulator, way: Way
) -> None:
    gate = way.hold(model_emulator)
    first = workers()
    execution = way.queued("go")
    row = until(has_text, execution)
    first.stop()
    assert first.process.returncode == 0
    assert Execution.objects.get(pk=row.pk).state == ExecutionState.RUNNING
    assert processes.is_alive(row.pid, row.pid_started_at)
    second = workers()
    adopted = until(lambda row: row.epoch == 1, execution)
    assert adopted.pid == row.pid
    gate.release()
    check_answered_once(execution, model_emulator, STORY)
    assert Worker.objects.get(pk=adopted.owner_id).pid == second.process.pid


@with_every_cli
class TestKilledWorker:
    """kill -9 of the worker; another one of the machine goes on."""

    def test_right_after_the_release(self, workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
        gate = model_emulator.hold("go", STORY)
        workers(), workers()
        execution = way.queued("go")
        gate.wait_arrived()
        kill_owner(execution)
        until(adopted, execution)
        gate.release()
        check_answered_once(execution, model_emulator, STORY)

    def test_in_the_middle_of_a_text(self, workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
        gate = way.hold(model_emulator)
        workers(), workers()
        execution = way.queued("go")
        until(has_text, execution)
        kill_owner(execution)
        until(adopted, execution)
        gate.release()
        check_answered_once(execution, model_emulator, STORY)

    def test_twice_in_one_turn(self, workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
        gate = way.hold(model_emulator)
        workers(), workers(), workers()
        execution = way.queued("go")
        until(has_text, execution)
        for epoch in (1, 2):
            kill_owner(execution)
            until(lambda row, epoch=epoch: row.epoch == epoch, execution)
        gate.release()
        check_answered_once(execution, model_emulator, STORY)

    def test_while_a_tool_call_waits_for_its_verdict(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way, tmp_path: Path
    ) -> None:
        """It is asked again, and the command runs once."""
        way.run_command(model_emulator, "echo ran >> ran", then="It ran.")
        workers(), workers()
        execution = way.queued("go", identity=made.BotFactory(tools=["Bash"]))
        until(running, execution)
        with locked("identities_toolgrant"):
            wait_blocked_on("identities_toolgrant")
            kill_owner(execution)
            until(adopted, execution)
        check_answered_once(execution, model_emulator, "It ran.", asked=2)
        (file,) = tmp_path.glob("var/workspaces/*/ran")
        assert file.read_text() == "ran\n"
        kinds = [event.kind for event in queries.events_after(execution.pk)]
        assert (kinds.count(EventKind.TOOL_STARTED), kinds.count(EventKind.TOOL_FINISHED)) == (1, 1)

    def test_a_tool_call_that_was_allowed_is_not_asked_again(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way, tmp_path: Path
    ) -> None:
        command = "echo ran >> ran; while ! test -e go-on; do sleep 0.1; done"
        way.run_command(model_emulator, command, then="It ran.")
        workers(), workers()
        execution = way.queued("go", identity=made.BotFactory(tools=["Bash"]))
        (file,) = eventually(lambda: list(tmp_path.glob("var/workspaces/*/ran")), "the command to run")
        ToolGrant.objects.all().delete()
        kill_owner(execution)
        until(adopted, execution)
        (file.parent / "go-on").touch()
        check_answered_once(execution, model_emulator, "It ran.", asked=2)
        assert file.read_text() == "ran\n"

    def test_while_the_end_is_being_written(self, workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
        gate = way.hold(model_emulator)
        workers(), workers()
        execution = way.queued("go")
        until(has_text, execution)
        with locked("kernel_journalentry"):
            gate.release()
            wait_blocked_on("kernel_journalentry")
            kill_owner(execution)
        check_answered_once(execution, model_emulator, STORY)

    def test_right_after_the_end_was_written(self, workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
        """The shim has not heard that nothing is left to take over: the next worker tells it."""
        way.hold(model_emulator)
        workers()
        row = until(has_text, way.queued("go"))
        kill_owner(row)
        over = {"state": ExecutionState.SUCCEEDED, "outcome": OutcomeClass.OK, "ended_at": clock.db_now()}
        Execution.objects.filter(pk=row.pk).update(**over)
        assert processes.is_alive(row.pid, row.pid_started_at)
        workers()
        eventually(lambda: not processes.marked("FLEET_RUN", row.marker), "its CLI to be gone")
        eventually(lambda: not processes.is_alive(row.pid, row.pid_started_at), "its shim to be gone")

    def test_a_session_goes_on_after_an_adopted_turn(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way
    ) -> None:
        gate = way.hold(model_emulator)
        workers(), workers()
        execution = way.queued("go")
        until(has_text, execution)
        kill_owner(execution)
        until(adopted, execution)
        gate.release()
        row = check_answered_once(execution, model_emulator, STORY)
        next_turn = way.queued("And then?", identity=row.identity, session_id=row.session_id, session_turns=1)
        assert until(ended, next_turn).state == ExecutionState.SUCCEEDED
        assert STORY in str(model_emulator.requests[-1].messages)


@pytest.mark.parametrize("way", ["claude", "codex"], indirect=True)
class TestBranch:
    """The turn that another worker finds is the first of a session that branches off another one."""

    def begin(self, model: ModelEmulator, way: Way) -> tuple[Execution, Gate]:
        """A branch that has begun to answer, and what its model waits for. The model knows of no request before."""
        parent = until(ended, way.queued("My name is Eva."))
        assert parent.state == ExecutionState.SUCCEEDED
        model.clear()
        gate = way.hold(model)
        branch = way.queued("go", identity=parent.identity, fork_of=parent.session_id)
        until(has_text, branch)
        return branch, gate

    def go_on(self, row: Execution, model: ModelEmulator, way: Way) -> None:
        """Its next turn knows everything, and the session it left nothing of it."""
        for session, knows in ((row.session_id, True), (row.fork_of, False)):
            turn = way.queued("And then?", identity=row.identity, session_id=session, session_turns=1)
            assert until(ended, turn).state == ExecutionState.SUCCEEDED
            heard = str(model.requests[-1].messages)
            assert ("My name is Eva." in heard, STORY in heard) == (True, knows)

    def test_another_worker_goes_on_with_it(self, workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
        workers(), workers()
        branch, gate = self.begin(model_emulator, way)
        kill_owner(branch)
        until(adopted, branch)
        gate.release()
        row = check_answered_once(branch, model_emulator, STORY)
        assert "My name is Eva." in str(model_emulator.requests[-1].messages)
        self.go_on(row, model_emulator, way)

    def test_it_may_leave_a_session_that_is_at_work(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way
    ) -> None:
        workers()
        first = until(ended, way.queued("My name is Eva."))
        gate = way.hold(model_emulator)
        session = {"identity": first.identity, "session_id": first.session_id}
        works = way.queued("go", session_turns=1, **session)
        until(has_text, works)
        branch = until(ended, way.queued("Who am I?", identity=first.identity, fork_of=first.session_id))
        assert branch.state == ExecutionState.SUCCEEDED
        assert "My name is Eva." in str(model_emulator.requests[-1].messages)
        gate.release()
        assert until(ended, works).answer == STORY
        assert until(ended, way.queued("And then?", session_turns=2, **session)).state == ExecutionState.SUCCEEDED
        heard = str(model_emulator.requests[-1].messages)
        assert (STORY in heard, "Who am I?" in heard) == (True, False)

    def test_its_answer_is_recovered_when_nobody_can(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way
    ) -> None:
        workers()
        branch, gate = self.begin(model_emulator, way)
        with locked("kernel_journalentry"):
            gate.release()
            wait_blocked_on("kernel_journalentry")
            row = Execution.objects.get(pk=branch.pk)
            kill_owner(row)
            os.kill(row.pid, signal.SIGKILL)
        workers()
        row = until(ended, branch)
        assert (row.state, row.output) == (ExecutionState.SUCCEEDED, SPENT)
        assert row.answer.startswith(STORY) and "recovered" in row.answer
        self.go_on(row, model_emulator, way)


class TestKilledProcesses:
    """kill -9 of what the worker has started."""

    def start(self, workers: Workers, model: ModelEmulator) -> Execution:
        model.hold("go", STORY, after_events=6)
        workers()
        return until(has_text, made.queued("go", provider="claude"))

    def test_the_cli(self, workers: Workers, model_emulator: ModelEmulator) -> None:
        row = self.start(workers, model_emulator)
        (cli,) = cli_of(row)
        cli.kill()
        row = until(ended, row)
        assert (row.state, row.outcome, row.spend_stage) == (
            ExecutionState.FAILED,
            OutcomeClass.ERROR,
            SpendStage.SETTLED,
        )
        assert STORY.startswith(row.answer) and row.answer
        assert row.process_gone_at is not None

    def test_the_shim_and_the_worker(self, workers: Workers, model_emulator: ModelEmulator) -> None:
        row = self.start(workers, model_emulator)
        workers()
        tree = psutil.Process(row.pid).children(recursive=True)
        os.kill(row.pid, signal.SIGKILL)
        kill_owner(row)
        row = until(ended, row)
        assert (row.state, row.outcome, row.spend_stage) == (ExecutionState.LOST, OutcomeClass.LOST, SpendStage.UNKNOWN)
        assert row.process_gone_at is not None
        assert not alive(tree)

    def test_the_cli_while_no_worker_is_there(self, workers: Workers, model_emulator: ModelEmulator) -> None:
        """Whoever comes next hears it from the shim."""
        row = self.start(workers, model_emulator)
        kill_owner(row)
        (cli,) = cli_of(row)
        cli.kill()
        workers()
        row = until(ended, row)
        assert (row.state, row.outcome, row.epoch) == (ExecutionState.FAILED, OutcomeClass.ERROR, 1)
        assert STORY.startswith(row.answer) and row.answer


@with_every_cli
def test_a_frozen_worker_that_thaws_is_shut_out(workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
    gate = way.hold(model_emulator)
    log = (workers(), workers())[0].log
    execution = way.queued("go")
    row = until(has_text, execution)
    frozen = psutil.Process(owner_of(execution))
    frozen.suspend()
    expire(row)
    until(adopted, execution)
    frozen.resume()
    eventually(lambda: log.read_text().count("execution.left") == 1, "the late worker to see that it is late")
    gate.release()
    check_answered_once(execution, model_emulator, STORY)
    assert not OrphanResult.objects.exists()


class TestAWorkerThatIsToldToGoWhileItTakesOver:
    """Its turn is paid for, and the next worker can do what this one had begun."""

    def begin(self, workers: Workers, model: ModelEmulator, way: Way) -> tuple[Execution, Gate, CeleryWorker]:
        """A turn whose first worker is dead, and whose second one waits for an answer of the frozen shim."""
        gate = way.hold(model)
        workers()
        row = until(has_text, way.queued("go"))
        os.kill(row.pid, signal.SIGSTOP)
        kill_owner(row)
        second = workers()
        return until(adopted, row), gate, second

    def go_on(self, workers: Workers, row: Execution, gate: Gate, model: ModelEmulator) -> None:
        workers()
        assert until(lambda row: row.epoch >= 2, row).pid == row.pid
        gate.release()
        check_answered_once(row, model, STORY)

    def test_it_leaves_what_it_could_not_take_over_yet(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way
    ) -> None:
        row, gate, second = self.begin(workers, model_emulator, way)
        second.stop()
        assert "execution.left" in second.log.read_text()
        assert processes.is_alive(row.pid, row.pid_started_at)
        os.kill(row.pid, signal.SIGCONT)
        self.go_on(workers, row, gate, model_emulator)

    def test_it_leaves_what_it_has_just_taken_over(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way
    ) -> None:
        row, gate, second = self.begin(workers, model_emulator, way)
        second.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            second.process.wait(1.0)  # it has been told, and waits for the shim
        os.kill(row.pid, signal.SIGCONT)
        second.stop()
        assert "execution.left" in second.log.read_text()
        self.go_on(workers, row, gate, model_emulator)


def test_a_database_that_fails_in_the_middle_of_a_take_over_costs_no_answer(
    workers: Workers, model_emulator: ModelEmulator, way: Way
) -> None:
    gate = way.hold(model_emulator)
    workers()
    row = until(has_text, way.queued("go"))
    with locked("execution_executionevent"):
        kill_owner(row)
        second = workers()
        until(adopted, row)
        eventually(lambda: cut_off(second, "execution_executionevent"), "its connection to break and it to notice")
    gate.release()
    check_answered_once(row, model_emulator, STORY)


def test_what_has_become_of_its_workspace_does_not_end_a_turn_at_work(
    workers: Workers, model_emulator: ModelEmulator, way: Way, tmp_path: Path
) -> None:
    """Nothing has to be written for it: a disk that is full by now, or a bot that moved its directory, is no matter."""
    gate = way.hold(model_emulator)
    workers()
    row = until(has_text, way.queued("go"))
    kill_owner(row)
    workspace = tmp_path / "var" / "workspaces" / row.identity.slug
    workspace.symlink_to(workspace.rename(tmp_path / "elsewhere"))
    workers()
    until(adopted, row)
    gate.release()
    check_answered_once(row, model_emulator, STORY)


def test_workers_that_go_at_once_leave_all_of_it_to_the_next_whatever_redis_forgets(
    workers: Workers, model_emulator: ModelEmulator, way: Way
) -> None:
    gate = way.hold(model_emulator)
    both = [workers(FLEET_WORKER_SLOTS="1"), workers(FLEET_WORKER_SLOTS="1")]
    rows = [until(has_text, way.queued("go")) for _ in both]
    assert len({row.owner_id for row in rows}) == 2
    for worker in both:
        worker.process.send_signal(signal.SIGTERM)
    redis.Redis.from_url(django_settings.REDIS_URL).flushall()
    for worker in both:
        worker.stop()
    assert both[0].log.read_text().count("execution.left") == 2
    workers()
    for row in rows:
        until(adopted, row)
    gate.release()
    assert {until(ended, row).answer for row in rows} == {STORY}
    assert len(model_emulator.requests) == 2


def cut_off(worker: CeleryWorker, table: str) -> bool:
    """End the connections that wait for this table, which may be another worker's; return whether this one has noticed."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    with psycopg.connect(database_url()) as connection:
        connection.execute(query, [table])
    return "database.away" in worker.log.read_text()


def test_when_nobody_comes_the_tree_ends_and_the_row_is_closed(workers: Workers, model_emulator: ModelEmulator) -> None:
    model_emulator.hold("go", STORY, after_events=6)
    workers(FLEET_DETACHED_SECONDS="1")
    row = until(has_text, made.queued("go", provider="claude"))
    tree = [psutil.Process(row.pid), *psutil.Process(row.pid).children(recursive=True)]
    kill_owner(row)
    actions.sweep()
    assert Execution.objects.get(pk=row.pk).state == ExecutionState.RUNNING
    eventually(lambda: not alive(tree), "the tree to be gone")
    actions.sweep()
    row = Execution.objects.get(pk=row.pk)
    assert (row.state, row.outcome, row.spend_stage) == (ExecutionState.LOST, OutcomeClass.LOST, SpendStage.UNKNOWN)
    assert row.process_gone_at is not None


def test_a_kill_order_given_while_nobody_was_there(workers: Workers, model_emulator: ModelEmulator) -> None:
    model_emulator.hold("go", STORY, after_events=6)
    workers()
    row = until(has_text, made.queued("go", provider="claude"))
    tree = [psutil.Process(row.pid), *psutil.Process(row.pid).children(recursive=True)]
    kill_owner(row)
    order = governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="fire drill", by=BY)
    workers()
    row = until(ended, row)
    assert (row.state, row.outcome) == (ExecutionState.STOPPED, OutcomeClass.GOVERNANCE)
    assert not alive(tree)
    (line,) = governance_queries.receipt(order).lines
    assert (line.killed, "all its descendants are gone" in line.sentence) == (True, True)


@pytest.mark.parametrize("asked", ["a kill order", "a person"])
def test_a_stop_needs_no_worker_to_come(
    workers: Workers, model_emulator: ModelEmulator, tmp_path: Path, settings, asked: str
) -> None:
    """The runner sweeps as well, and ends what waits for somebody to go on with it."""
    model_emulator.hold("go", STORY, after_events=6)
    workers()
    row = until(has_text, made.queued("go", provider="claude"))
    tree = [psutil.Process(row.pid), *psutil.Process(row.pid).children(recursive=True)]
    kill_owner(row)
    settings.FLEET_RUNTIME_DIR = tmp_path / "var" / "run"
    actions.sweep()
    assert alive(tree), "it waits for another worker"
    if asked == "a person":
        actions.request_stop(execution_id=row.pk, reason="enough", by=BY)
    else:
        governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="fire drill", by=BY)
    actions.sweep()
    row = Execution.objects.get(pk=row.pk)
    assert (row.state, row.outcome) == (
        ExecutionState.STOPPED,
        OutcomeClass.STOPPED if asked == "a person" else OutcomeClass.GOVERNANCE,
    )
    assert row.answer and STORY.startswith(row.answer)
    assert not alive(tree)


@with_every_cli
def test_a_stop_asked_for_while_nobody_was_there(workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
    way.hold(model_emulator)
    workers()
    row = until(has_text, way.queued("go"))
    kill_owner(row)
    actions.request_stop(execution_id=row.pk, reason="enough", by=BY)
    workers()
    row = until(ended, row)
    assert (row.state, row.outcome) == (ExecutionState.STOPPED, OutcomeClass.STOPPED)
    assert STORY.startswith(row.answer) and row.answer


def test_what_was_not_released_is_queued_again(workers: Workers, tmp_path: Path, model_emulator: ModelEmulator) -> None:
    slow = fake_cli.write(tmp_path / "slow", "time.sleep(600)")
    workers(FLEET_CLAUDE_CLI=str(slow))
    execution = made.queued("Hello", provider="claude")
    row = until(lambda row: row.state == ExecutionState.STARTING, execution)
    kill_owner(row)
    workers()
    row = until(ended, execution)
    assert (row.state, row.attempt, len(model_emulator.requests)) == (ExecutionState.SUCCEEDED, 2, 1)


def test_while_all_of_fleet_stops_nothing_is_left_running(
    workers: Workers, model_emulator: ModelEmulator, tmp_path: Path
) -> None:
    model_emulator.hold("go", STORY, after_events=6)
    worker = workers()
    row = until(has_text, made.queued("go", provider="claude"))
    (tmp_path / "var" / "stopping").touch()
    worker.stop()
    row = Execution.objects.get(pk=row.pk)
    assert (row.state, "restarted" in row.sentence) == (ExecutionState.STOPPED, True)
    assert not processes.is_alive(row.pid, row.pid_started_at)


def expire(execution: Execution) -> None:
    """Its worker has not been heard of for as long as a lease lasts."""
    Execution.objects.filter(pk=execution.pk).update(lease_until=clock.db_now(-dt.timedelta(seconds=1)))


@pytest.mark.parametrize("way", ["claude", "codex"], indirect=True)
class TestWhatNobodyCanGoOnWith:
    """Worker, shim and CLI are gone: what the CLI has written down is all there is."""

    def lose(self, execution: Execution) -> None:
        """Kill everything at once, and let whoever comes next look."""
        row = Execution.objects.get(pk=execution.pk)
        kill_owner(row)
        os.kill(row.pid, signal.SIGKILL)

    def test_a_whole_answer_is_recovered_and_says_so(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way
    ) -> None:
        gate = way.hold(model_emulator)
        workers()
        execution = way.queued("go")
        until(has_text, execution)
        with locked("kernel_journalentry"):
            gate.release()
            wait_blocked_on("kernel_journalentry")  # the answer is there, and the worker about to write it
            self.lose(execution)
        workers()
        row = until(ended, execution)
        assert (row.state, row.outcome, row.spend_stage) == (
            ExecutionState.SUCCEEDED,
            OutcomeClass.OK,
            SpendStage.SETTLED,
        )
        assert row.answer.startswith(STORY) and "recovered" in row.answer
        assert row.details["recovered"] and row.output > 0 and row.process_gone_at is not None
        notices = [event.payload["text"] for event in queries.events_after(row.pk) if event.kind == EventKind.NOTICE]
        assert ["recovered" in text for text in notices] == [True]
        assert len(model_emulator.requests) == 1
        assert (
            TokenLedger.objects.filter(execution_id=row.pk)
            .exclude(message_id="")
            .values("message_id")
            .distinct()
            .count()
            == 1
        )

    def test_it_cost_at_least_what_was_counted(self, workers: Workers, model_emulator: ModelEmulator, way: Way) -> None:
        way.run_command(model_emulator, "echo ran", then=STORY)
        model_emulator.hold(lambda request: bool(request.tool_results), STORY, after_events=way.events)
        workers()
        execution = way.queued("go", identity=made.BotFactory(tools=["Bash"]))
        until(has_text, execution)
        self.lose(execution)
        workers()
        row = until(ended, execution)
        posted = TokenLedger.objects.filter(execution_id=row.pk).aggregate(Sum("cost_nano_usd"))["cost_nano_usd__sum"]
        assert (row.state, row.spend_stage, row.cost_basis) == (ExecutionState.LOST, SpendStage.UNKNOWN, "at_least")
        assert row.cost_nano_usd == posted > 0

    def test_half_an_answer_is_kept_and_the_person_told(
        self, workers: Workers, model_emulator: ModelEmulator, way: Way
    ) -> None:
        way.hold(model_emulator)
        workers()
        execution = way.queued("go")
        until(has_text, execution)
        if (
            way.provider == "claude"
        ):  # it tells at a message's beginning what that has cost; words are written down first
            eventually(TokenLedger.objects.filter(execution_id=execution.pk).exists, "its first tokens to be counted")
        self.lose(execution)
        workers()
        row = until(ended, execution)
        assert (row.state, row.outcome, row.spend_stage) == (ExecutionState.LOST, OutcomeClass.LOST, SpendStage.UNKNOWN)
        assert row.answer and STORY.startswith(row.answer)
        assert "kept above" in row.sentence and "ask again" in row.sentence
        assert row.cost_basis == {"claude": "at_least", "codex": "unknown"}[way.provider]
        assert Reservation.objects.get(pk=row.reservation_id).state == "uncertain"
