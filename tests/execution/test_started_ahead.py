"""Processes started ahead, for first turns of sessions to come: of bots that want them, replaced after use, never shared."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from conversations.models import Session
from execution import actions
from execution.engine import Supervisor
from execution.models import Execution, HeldProcess
from execution.shim import processes
from execution.states import ExecutionState
from fleet.kernel.models import JournalEntry
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from identities import actions as identity_actions
from identities.models import Identity
from identities.states import TextKind
from tests.conversations import scenes
from tests.execution.running import eventually, running, until
from tests.execution.test_standby import BY, SlowProvider, SlowRun, provider
from tests.factories import execution as made

__all__ = ["provider"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlowRun, "prepare", lambda _run: None)


@pytest.fixture
def worker(provider: SlowProvider) -> Iterator[Supervisor]:
    worker = Supervisor(slots=4)
    worker._register()
    worker._accepting = True
    yield worker
    worker._standby.close()


@pytest.fixture
def bot() -> Identity:
    return made.BotFactory(prewarmed=1)


def answer(worker: Supervisor, execution: Execution) -> Execution:
    """Run it as a hint would let it run."""
    thread = threading.Thread(target=worker._in_thread, args=(execution.pk, execution.epoch))
    worker._taken += 1
    thread.start()
    thread.join(60)
    execution.refresh_from_db()
    assert execution.state == ExecutionState.SUCCEEDED, execution.sentence
    return execution


def ahead(bot: Identity) -> list[HeldProcess]:
    return list(HeldProcess.objects.filter(identity=bot, conversation_id=None, turns=0))


def test_none_is_started_for_a_bot_that_asks_for_none(worker, provider) -> None:
    answer(worker, made.queued("Hello", identity=made.BotFactory()))
    assert len(provider.runs) == 1


def test_one_waits_once_the_bot_is_busy_and_a_first_turn_runs_in_it(worker, provider, bot) -> None:
    answer(worker, made.queued("Hello", identity=bot))
    (note,) = ahead(bot)
    adopted = actions.adopt_prewarmed(identity=bot, provider="mock", model="mock-1", conversation_id=9, by=BY)
    assert adopted == note.session_id
    answer(worker, made.queued("First", identity=bot, session_id=adopted, conversation_id=9))
    assert [run._prompt.session_id for run in provider.runs].count(adopted) == 1
    assert HeldProcess.objects.get(pk=note.pk).turns == 1
    (replaced,) = ahead(bot)
    assert replaced.session_id != adopted


def test_two_conversations_never_get_the_same(worker, bot) -> None:
    answer(worker, made.queued("Hello", identity=bot))
    wanted = {"identity": bot, "provider": "mock", "model": "mock-1", "by": BY}
    assert actions.adopt_prewarmed(**wanted, conversation_id=1)
    assert actions.adopt_prewarmed(**wanted, conversation_id=2) is None


def test_what_is_written_later_does_not_free_it_again(worker, bot) -> None:
    answer(worker, made.queued("Hello", identity=bot))
    wanted = {"identity": bot, "provider": "mock", "model": "mock-1", "by": BY}
    assert actions.adopt_prewarmed(**wanted, conversation_id=1)
    worker._standby.weigh()
    assert actions.adopt_prewarmed(**wanted, conversation_id=2) is None


def test_one_that_is_gone_does_not_come_back(worker, bot) -> None:
    answer(worker, made.queued("Hello", identity=bot))
    (note,) = ahead(bot)
    actions.note_process_ended(held_id=note.pk, why="a test", by=BY)
    worker._standby.weigh()
    assert not ahead(bot)


@pytest.mark.parametrize("differs", [{"provider": "claude"}, {"model": "mock-2"}], ids=str)
def test_it_is_for_the_same_provider_and_model_only(worker, bot, differs) -> None:
    answer(worker, made.queued("Hello", identity=bot))
    wanted = {"identity": bot, "provider": "mock", "model": "mock-1", "conversation_id": 1, "by": BY, **differs}
    assert actions.adopt_prewarmed(**wanted) is None


def test_the_session_that_a_conversation_opens_is_its_session(worker, provider) -> None:
    ada = scenes.bot("ada", prewarmed=1)
    answer(worker, made.queued("Hello", identity=ada))
    (note,) = ahead(ada)
    eva = scenes.operator("eva")
    eva.chat_accounts.create(platform="telegram", external_id="501")
    turn = scenes.turn_of(scenes.say("Hello"))
    assert Session.objects.get().provider_session_id == note.session_id == turn.execution.session_id
    answer(worker, turn.execution)
    assert [run._prompt.session_id for run in provider.runs].count(note.session_id) == 1


def test_a_bot_that_changed_gets_a_process_that_knows_it(worker, provider, bot) -> None:
    answer(worker, made.queued("Hello", identity=bot))
    (note,) = ahead(bot)
    identity_actions.publish_text(identity=bot, kind=TextKind.SOUL, name="soul", content="You are new.", by=BY)
    answer(worker, made.queued("First", identity=bot, session_id=note.session_id))
    assert "You are new." in provider.runs[-2]._prompt.system_prompt
    eventually(lambda: not HeldProcess.objects.filter(pk=note.pk).exists(), "the stale one to end")


def test_all_bots_together_have_so_many_and_the_idle_one_makes_room(worker, bot, settings) -> None:
    settings.FLEET_PREWARMED_PROCESSES = 1
    answer(worker, made.queued("Hello", identity=bot))
    other = made.BotFactory(prewarmed=3)
    answer(worker, made.queued("Hello", identity=other))
    eventually(lambda: not ahead(bot), "the first bot's to end")
    assert len(ahead(other)) == 1


@pytest.mark.parametrize("why", ["idle", "paused", "switched off", "killed", "heavy"])
def test_it_ends_when_its_reason_does(worker, bot, settings, monkeypatch, why) -> None:
    answer(worker, made.queued("Hello", identity=bot))
    (note,) = ahead(bot)
    if why == "idle":
        settings.FLEET_WARM_SECONDS = 0.0
    elif why == "paused":
        identity_actions.pause(identity=bot, by=BY)
    elif why == "switched off":
        identity_actions.update_identity(identity=bot, prewarmed=0, by=BY)
    elif why == "heavy":
        monkeypatch.setattr("execution.engine.standby.processes.megabytes", lambda _facts: 700.0)
    else:
        governance_actions.stop(scope=KillScope.FLEET, scope_id="", mode=KillMode.DRAIN, reason="drill", by=BY)
    worker._standby.look_around()
    worker._standby.weigh()
    eventually(lambda: not HeldProcess.objects.filter(pk=note.pk).exists(), "it to end")
    (entry,) = JournalEntry.objects.filter(event="execution.process.ended", subject_id=str(note.pk))
    assert entry.details["why"]


def test_one_that_could_not_be_started_makes_room_for_the_next(worker, bot, monkeypatch) -> None:
    def full(_run: SlowRun) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as trouble:
        trouble.setattr(SlowRun, "prepare", full)
        worker._standby.start_ahead(bot, provider="mock", model="mock-1")
    assert not ahead(bot)
    worker._standby.start_ahead(bot, provider="mock", model="mock-1")
    assert ahead(bot)


class TestSwitchedOff:
    def test_the_process_of_a_bot_that_keeps_none_leaves_after_its_answer(self, worker, provider) -> None:
        answer(worker, made.queued("Hello", identity=made.BotFactory(warm=False)))
        assert provider.runs[0].dead.is_set()
        assert not HeldProcess.objects.exists()

    @pytest.mark.parametrize("change", [{"warm": False}, {"state": "paused"}, {"state": "retired"}], ids=str)
    def test_one_that_stayed_ends_when_the_bot_no_longer_keeps_it(self, worker, provider, change) -> None:
        bot = made.BotFactory()
        answer(worker, made.queued("Hello", identity=bot, session_id=str(uuid.uuid4())))
        worker._standby.weigh()
        assert HeldProcess.objects.get().turns == 1
        Identity.objects.filter(pk=bot.pk).update(**change)
        worker._standby.weigh()
        assert provider.runs[0].dead.wait(30)
        eventually(lambda: not HeldProcess.objects.exists(), "the note to be struck")


class TestProof:
    """What is written of a process's end, so that it can be looked up whether it was seen to be gone."""

    def test_every_answer_of_a_process_says_when_it_was_gone(self, worker) -> None:
        process = made.dead_process()
        bot = made.BotFactory()
        rows = [made.running(made.queued(identity=bot), process=process) for _ in range(2)]
        for row in rows:
            ending = actions.Ending(ExecutionState.SUCCEEDED, "ok", answer="Yes.", gone=False)
            actions.finish(execution=row, ending=ending, lines=[], first_sequence=1, by=BY)
        held = actions.Held(uuid.uuid4(), bot.pk, None, "mock", "mock-1", "s-1", 2, process, 5.0, 1.0)
        actions.note_held(worker_id=rows[0].owner_id, held=[held])
        assert not Execution.objects.filter(process_gone_at__isnull=False).exists()
        actions.note_process_ended(held_id=held.id, why="a test", by=BY)
        assert Execution.objects.filter(process_gone_at__isnull=False).count() == 2
        entry = JournalEntry.objects.get(event="execution.process.ended")
        assert (entry.details["pid"], entry.details["turns"], entry.details["seen_gone"]) == (process.pid, 2, True)

    def test_what_nobody_wrote_down_is_found_by_the_sweep(self, worker) -> None:
        lost = made.WorkerFactory()
        held = actions.Held(
            uuid.uuid4(), made.BotFactory().pk, None, "mock", "m", "s-1", 2, made.dead_process(), 5.0, 1.0
        )
        actions.note_held(worker_id=lost.pk, held=[held])
        actions.sweep()
        assert HeldProcess.objects.exists()
        actions.retire_worker(worker_id=lost.pk, event="execution.worker.lost", by=BY)
        actions.sweep()
        assert not HeldProcess.objects.exists()

    def test_what_this_worker_no_longer_knows_is_struck_when_it_is_gone(self, worker) -> None:
        held = actions.Held(
            uuid.uuid4(), made.BotFactory().pk, None, "mock", "m", "s-1", 2, made.dead_process(), 5.0, 1.0
        )
        actions.note_held(worker_id=worker.worker.pk, held=[held])
        worker._standby.notes.settle()
        assert not HeldProcess.objects.exists()

    def test_one_whose_end_nobody_saw_is_struck_once_it_is_proven(self, worker, monkeypatch) -> None:
        monkeypatch.setattr(SlowRun, "kill", lambda _run: False)
        answer(worker, made.queued("Hello", identity=made.BotFactory()))
        worker._standby.clear("a test")
        processes_have_ended()
        assert HeldProcess.objects.exists()
        worker._standby.notes.settle()
        assert not HeldProcess.objects.exists()

    def test_one_that_ended_before_it_was_written_down_is_not_written_down(self, worker, monkeypatch) -> None:
        finish = actions.finish

        def and_then_a_kill_order_ends_it(**ending) -> Execution:
            row = finish(**ending)
            worker._standby.clear("a kill order")
            processes_have_ended()
            return row

        monkeypatch.setattr(actions, "finish", and_then_a_kill_order_ends_it)
        answer(worker, made.queued("Hello", identity=made.BotFactory()))
        worker._standby.notes.settle()
        assert not HeldProcess.objects.exists()

    def test_nothing_is_proven_of_one_that_goes_on_without_its_worker(self, worker, provider, monkeypatch) -> None:
        alive = processes.facts(os.getpid())
        monkeypatch.setattr(SlowRun, "prepare", lambda _run: alive)
        monkeypatch.setattr(SlowProvider, "capabilities", replace(SlowProvider.capabilities, adopts=True))
        bot, session = made.BotFactory(), str(uuid.uuid4())
        answered = answer(worker, made.queued("Hello", identity=bot, session_id=session))
        execution = made.queued("mock:hang", identity=bot, session_id=session, session_turns=1)
        worker.offer(execution.pk, execution.epoch)
        until(running, execution)
        eventually(lambda: worker._held()[0]._released, "its gate to be open")
        worker._leave_or_end()
        assert worker._wait_until_idle(20)
        answered.refresh_from_db()
        assert (len(provider.runs), answered.process_gone_at) == (1, None)
        assert HeldProcess.objects.exists()
        assert not JournalEntry.objects.filter(event="execution.process.ended").exists()


def processes_have_ended() -> None:
    """What ends in the background has ended."""
    for thread in threading.enumerate():
        if thread.name == "standby:end":
            thread.join(20)
