"""Processes that stand by, for an expected turn or after an answer: used when they fit exactly, ended when they do not, never a
reason to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from execution import actions
from execution.engine import Supervisor, standby, workspace
from execution.engine.standby import Expected, Ready, Standby
from execution.models import Execution
from execution.ports import Finished, NotPrepared, ProcessFacts, Prompt
from execution.providers import registry
from execution.providers.mock.provider import MockProvider, MockRun
from execution.states import ExecutionState, OutcomeClass
from governance import actions as governance_actions
from governance.models import StopLine
from governance.states import KillMode, KillScope
from identities import actions as identity_actions
from identities.models import Identity
from identities.states import TextKind
from tests.execution.running import eventually
from tests.factories import execution as made

BY = made.BY
pytestmark = pytest.mark.django_db(transaction=True)


class SlowRun(MockRun):
    """A mock run with a process that takes its time, or never gets ready."""

    broken = False

    def __init__(self, prompt: Prompt) -> None:
        super().__init__(prompt)
        self.started = threading.Event()
        self.may_be_ready = threading.Event()
        self.dead = threading.Event()

    def prepare(self) -> ProcessFacts | None:
        self.started.set()
        while not self.may_be_ready.wait(0.01):
            if self.dead.is_set():
                raise NotPrepared(Finished(OutcomeClass.STOPPED, sentence="Stopped."))
        if self.broken:
            raise NotPrepared(Finished(OutcomeClass.ERROR, sentence="It did not start."))
        return None

    def kill(self) -> bool:
        self.dead.set()
        return super().kill()

    def again(self) -> SlowRun:
        next_run = SlowRun(self._prompt.next())
        next_run.dead = self.dead  # the same process
        return next_run


class SlowProvider(MockProvider):
    """Keeps the runs it opened. Only the first one may be told to break."""

    capabilities = replace(MockProvider.capabilities, spawns_process=True)

    def __init__(self) -> None:
        self.runs: list[SlowRun] = []

    def open(self, prompt: Prompt) -> SlowRun:
        self.runs.append(SlowRun(prompt))
        return self.runs[-1]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> SlowProvider:
    slow = SlowProvider()
    monkeypatch.setattr(registry, "get", lambda _name: slow)
    return slow


@pytest.fixture
def bot() -> Identity:
    return made.BotFactory(concurrency=4)


@pytest.fixture
def pool() -> Iterator[Standby]:
    pool = Standby(most=2)
    yield pool
    pool.close()


def expected(bot: Identity, **changes: object) -> Expected:
    turn = Expected(
        identity_id=bot.pk, conversation_id=7, provider="mock", model="mock-1", session_id="s-1", session_turns=3
    )
    return replace(turn, **changes)


def stand_by(pool: Standby, turn: Expected) -> None:
    """Let it be expected in a thread, as a worker does."""
    threading.Thread(target=pool.expect, args=(turn,), daemon=True).start()


def prompt_of(bot: Identity, **changes: object) -> Prompt:
    """What an execution of this session will ask for."""
    texts = workspace.last_known(bot)
    return replace(workspace.prompt_of(bot, texts, model="mock-1", session_id="s-1", session_turns=3), **changes)


def started(provider: SlowProvider, number: int = 1) -> SlowRun:
    eventually(lambda: len(provider.runs) >= number, f"run {number} to be opened")
    assert provider.runs[number - 1].started.wait(30)
    return provider.runs[number - 1]


def test_a_process_is_started_for_an_expected_turn_and_handed_over_once(pool, provider, bot) -> None:
    stand_by(pool, expected(bot))
    run = started(provider)
    ready = pool.take(prompt_of(bot), conversation_id=7)
    assert ready.run is run
    assert pool.take(prompt_of(bot), conversation_id=7) is None


@pytest.mark.parametrize(
    "changes",
    [{"session_turns": 4}, {"model": "mock-2"}, {"system_prompt": "Somebody else."}, {"tools": ("Bash",)}],
    ids=lambda changes: next(iter(changes)),
)
def test_one_that_does_not_fit_exactly_is_ended_and_not_handed_over(pool, provider, bot, changes) -> None:
    stand_by(pool, expected(bot))
    run = started(provider)
    assert pool.take(prompt_of(bot, **changes), conversation_id=7) is None
    assert run.dead.wait(30)


def test_another_session_leaves_it_where_it_is(pool, provider, bot) -> None:
    stand_by(pool, expected(bot))
    started(provider)
    assert pool.take(prompt_of(bot, session_id="s-2"), conversation_id=8) is None
    assert pool.take(prompt_of(bot), conversation_id=7) is not None


def test_a_session_has_one_process_and_a_worker_at_most_so_many(pool, provider, bot) -> None:
    for number, session in enumerate(("s-1", "s-2"), start=1):
        stand_by(pool, expected(bot, session_id=session))
        started(provider, number)
        pool.expect(expected(bot, session_id="s-1"))  # has one
    pool.expect(expected(bot, session_id="s-3"))  # one too many
    assert [run._prompt.session_id for run in provider.runs] == ["s-1", "s-2"]


def test_what_nobody_asks_for_is_ended(pool, provider, bot, monkeypatch) -> None:
    stand_by(pool, expected(bot))
    run = started(provider)
    pool.look_around()
    assert not run.dead.is_set()
    monkeypatch.setattr(standby, "UNASKED_SECONDS", 0.0)
    pool.look_around()
    assert run.dead.wait(30)
    assert pool.take(prompt_of(bot), conversation_id=7) is None


def test_a_kill_order_ends_what_it_reaches(pool, provider, bot) -> None:
    other = made.BotFactory()
    stand_by(pool, expected(bot))
    stand_by(pool, expected(other, session_id="s-2", conversation_id=8))
    eventually(lambda: len(provider.runs) == 2, "both to be opened")
    governance_actions.stop(scope=KillScope.IDENTITY, scope_id=bot.slug, mode=KillMode.STOP, reason="drill", by=BY)
    pool.look_around()
    (hit,) = [run for run in provider.runs if run._prompt.session_id == "s-1"]
    (spared,) = [run for run in provider.runs if run._prompt.session_id == "s-2"]
    assert hit.dead.wait(30)
    assert not spared.dead.is_set()


def test_nothing_is_started_under_a_kill_order_or_for_a_paused_bot_or_after_the_end(pool, provider, bot) -> None:
    paused = made.BotFactory(state="paused")
    pool.expect(expected(paused))
    governance_actions.stop(scope=KillScope.FLEET, scope_id="", mode=KillMode.STOP, reason="drill", by=BY)
    pool.expect(expected(bot))
    pool.close()
    pool.expect(expected(bot))
    assert provider.runs == []


def test_the_end_of_the_worker_ends_what_stands_by(pool, provider, bot) -> None:
    stand_by(pool, expected(bot))
    run = started(provider)
    pool.close()
    assert run.dead.wait(30)


def test_the_worker_says_goodbye_when_what_stood_by_is_gone(pool, provider, bot, monkeypatch) -> None:
    stand_by(pool, expected(bot))
    run, may_go = started(provider), threading.Event()
    kill = run.kill
    monkeypatch.setattr(run, "kill", lambda: may_go.wait(30) and kill())
    pool.close()
    assert not pool.wait_ended(0.2)
    may_go.set()
    assert pool.wait_ended(20)


def test_a_provider_without_a_process_needs_none(pool, bot, monkeypatch) -> None:
    opened: list[Prompt] = []
    monkeypatch.setattr(MockProvider, "open", lambda _provider, prompt: opened.append(prompt))
    pool.expect(expected(bot))
    assert opened == []


class TestAfterAnAnswer:
    """A process that has answered stays for the next turn of its session."""

    def kept(self, pool: Standby, bot: Identity, session: str = "s-1", conversation: int = 7) -> SlowRun:
        run = SlowRun(prompt_of(bot, session_id=session))
        ready = Ready(run._prompt, run, bot.slug, conversation, ready=time.monotonic(), turns=1)
        ready.process.set_result(ProcessFacts(4000 + conversation, 1.0, "here", "boot"))
        assert pool.keep(ready)
        return run

    def test_it_is_handed_to_the_next_turn_only(self, pool, bot) -> None:
        run = self.kept(pool, bot)
        assert pool.take(prompt_of(bot), conversation_id=7).run is run
        assert pool.take(prompt_of(bot), conversation_id=7) is None

    def test_the_one_that_was_idle_longest_makes_room(self, pool, bot, settings) -> None:
        settings.FLEET_WARM_PROCESSES = 2
        runs = [self.kept(pool, bot, session=f"s-{number}", conversation=number) for number in range(3)]
        assert runs[0].dead.wait(30)
        assert [run.dead.is_set() for run in runs[1:]] == [False, False]

    def test_what_is_expected_does_not_count_among_them(self, pool, provider, bot, settings) -> None:
        settings.FLEET_WARM_PROCESSES = 1
        run = self.kept(pool, bot, session="s-9", conversation=9)
        stand_by(pool, expected(bot))
        started(provider)
        assert not run.dead.is_set()

    def test_none_stays_where_that_is_switched_off(self, pool, bot, settings) -> None:
        settings.FLEET_WARM_PROCESSES = 0
        run = SlowRun(prompt_of(bot))
        assert not pool.keep(Ready(run._prompt, run, bot.slug, 7, turns=1))
        assert not run.dead.is_set()

    def test_it_leaves_when_nobody_asks_for_long(self, pool, bot, settings) -> None:
        run = self.kept(pool, bot)
        pool.look_around()
        assert not run.dead.is_set()
        settings.FLEET_WARM_SECONDS = 0.0
        pool.look_around()
        assert run.dead.wait(30)

    def test_one_that_has_ended_by_itself_is_not_handed_over(self, pool, bot) -> None:
        self.kept(pool, bot)._stopping.set()
        assert pool.take(prompt_of(bot), conversation_id=7) is None

    def test_a_new_session_of_the_conversation_ends_it(self, pool, bot) -> None:
        run, elsewhere = self.kept(pool, bot), self.kept(pool, bot, session="s-5", conversation=8)
        assert pool.take(prompt_of(bot, session_id="s-2", session_turns=0), conversation_id=7) is None
        assert run.dead.wait(30)
        assert not elsewhere.dead.is_set()

    def test_one_that_has_grown_too_large_leaves(self, pool, bot, settings, monkeypatch) -> None:
        run = self.kept(pool, bot)
        monkeypatch.setattr(standby.processes, "megabytes", lambda _facts: 700.0)
        pool.weigh()
        assert run.dead.wait(30)

    def test_a_kill_order_that_only_drains_ends_it_too(self, pool, bot) -> None:
        run = self.kept(pool, bot)
        order = governance_actions.stop(scope=KillScope.FLEET, scope_id="", mode=KillMode.DRAIN, reason="drill", by=BY)
        pool.look_around()
        assert run.dead.wait(30)
        line = eventually(
            lambda: StopLine.objects.filter(order=order, kind="process").first(), "its line in the receipt"
        )
        assert (line.subject, line.expected, line.killed, bool(line.quiet_at)) == ("idle:here:4007", False, True, True)
        assert bot.slug in line.sentence


class TestATurn:
    """The same in a worker: what was expected comes, and the next one finds the process of the last."""

    @pytest.fixture
    def worker(self, provider: SlowProvider) -> Iterator[Supervisor]:
        worker = Supervisor(slots=4)
        worker._register()
        worker._accepting = True
        yield worker
        worker._standby.close()

    def queued(self, bot: Identity) -> Execution:
        return made.queued("Hello", identity=bot, session_id="s-1", session_turns=3)

    def claimed_in_background(self, worker: Supervisor, execution: Execution) -> threading.Thread:
        """Let the worker run it in a thread, and return that once the execution is claimed."""
        working = threading.Thread(target=worker._in_thread, args=(execution.pk, execution.epoch))
        working.start()
        eventually(lambda: Execution.objects.get(pk=execution.pk).state == ExecutionState.STARTING, "it to be claimed")
        return working

    def test_runs_in_the_process_that_stands_by(self, worker, provider, bot) -> None:
        worker.expect(expected(bot))
        run = started(provider)
        run.may_be_ready.set()
        execution = self.queued(bot)
        worker.work(execution.pk, execution.epoch)
        execution.refresh_from_db()
        assert (execution.state, len(provider.runs)) == (ExecutionState.SUCCEEDED, 1)

    def test_waits_for_one_that_is_not_ready_yet(self, worker, provider, bot) -> None:
        worker.expect(expected(bot))
        run = started(provider)
        execution = self.queued(bot)
        working = self.claimed_in_background(worker, execution)
        run.may_be_ready.set()
        working.join(60)
        execution.refresh_from_db()
        assert (execution.state, len(provider.runs)) == (ExecutionState.SUCCEEDED, 1)

    def test_starts_a_process_of_its_own_when_that_one_breaks(self, worker, provider, bot, monkeypatch) -> None:
        worker.expect(expected(bot))
        first = started(provider)
        first.broken = True
        first.may_be_ready.set()
        monkeypatch.setattr(SlowRun, "prepare", lambda _run: None)  # the next one starts without ado
        execution = self.queued(bot)
        worker.work(execution.pk, execution.epoch)
        execution.refresh_from_db()
        assert (execution.state, len(provider.runs)) == (ExecutionState.SUCCEEDED, 2)

    def test_that_is_stopped_while_it_waits_ends_the_process_with_it(self, worker, provider, bot) -> None:
        worker.expect(expected(bot))
        run = started(provider)
        execution = self.queued(bot)
        working = self.claimed_in_background(worker, execution)
        actions.request_stop(execution_id=execution.pk, reason="enough", by=BY)
        eventually(lambda: worker._held(), "it to be held")
        worker._look_around()
        working.join(60)
        execution.refresh_from_db()
        assert (execution.state, run.dead.is_set()) == (ExecutionState.STOPPED, True)

    def test_of_a_bot_that_changed_meanwhile_gets_a_process_that_knows_it(self, worker, provider, bot) -> None:
        worker.expect(expected(bot))
        stale = started(provider)
        identity_actions.publish_text(identity=bot, kind=TextKind.SOUL, name="soul", content="You are new.", by=BY)
        execution = self.queued(bot)
        working = threading.Thread(target=worker._in_thread, args=(execution.pk, execution.epoch))
        working.start()
        fresh = started(provider, 2)
        fresh.may_be_ready.set()
        working.join(60)
        execution.refresh_from_db()
        assert execution.state == ExecutionState.SUCCEEDED
        assert stale.dead.wait(30)
        assert "You are new." in fresh._prompt.system_prompt

    def test_after_an_answer_the_next_turn_runs_in_the_same_process(self, worker, provider, bot, monkeypatch) -> None:
        monkeypatch.setattr(SlowRun, "prepare", lambda _run: None)
        for turns in range(3):
            execution = made.queued("Hello", identity=bot, session_id="s-1", session_turns=turns)
            worker.work(execution.pk, execution.epoch)
            execution.refresh_from_db()
            assert execution.state == ExecutionState.SUCCEEDED
        assert len(provider.runs) == 1

    @pytest.mark.parametrize("text", ["mock:fail=overload", "mock:crash"])
    def test_after_any_other_end_it_does_not(self, worker, provider, bot, monkeypatch, text) -> None:
        monkeypatch.setattr(SlowRun, "prepare", lambda _run: None)
        for turns, said in enumerate((text, "Hello")):
            execution = made.queued(said, identity=bot, session_id="s-1", session_turns=turns)
            worker.work(execution.pk, execution.epoch)
        assert len(provider.runs) == 2
        assert provider.runs[0].dead.is_set()

    def test_a_bot_that_changed_is_not_answered_for_by_its_old_process(
        self, worker, provider, bot, monkeypatch
    ) -> None:
        monkeypatch.setattr(SlowRun, "prepare", lambda _run: None)
        for turns in range(2):
            execution = made.queued("Hello", identity=bot, session_id="s-1", session_turns=turns)
            worker.work(execution.pk, execution.epoch)
            identity_actions.publish_text(identity=bot, kind=TextKind.SOUL, name="soul", content="You are new.", by=BY)
        assert len(provider.runs) == 2
        assert "You are new." in provider.runs[1]._prompt.system_prompt
