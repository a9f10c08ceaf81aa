"""What is said while a bot works, with real workers: it reaches the running turn, whatever is lost, and nothing is said twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from conversations import actions as conversation_actions
from conversations.models import Conversation, Message, Turn
from execution import actions
from execution.models import Execution, Offer
from execution.states import EventKind, ExecutionState
from fleet.kernel import live, queue
from identities.models import ChatAccount, Identity
from tests.conversations import scenes
from tests.emulators.model import ModelEmulator
from tests.execution.running import CeleryWorker, eventually, running, until
from tests.factories import execution as made

pytestmark = [pytest.mark.timeout(600), pytest.mark.django_db(transaction=True)]

Say = Callable[[str], Turn]
STORY = "Once upon a time there was a bot that had all the time in the world, and a worker that had none of it."


@pytest.fixture
def var(tmp_path: Path, settings) -> Path:
    """The directory of the worker; this process looks for homes there too."""
    queue._silent_until = 0.0
    settings.FLEET_HOMES = tmp_path / "var" / "homes"
    return tmp_path / "var"


@pytest.fixture
def ada(db: None) -> Identity:
    made.set_the_table()
    return scenes.bot("ada")


@pytest.fixture
def say(ada: Identity) -> Say:
    """Eva says something in a conversation that steers; returns the turn it went into."""
    ChatAccount.objects.create(platform="telegram", external_id="501", person=scenes.operator("eva"))

    def said(text: str) -> Turn:
        turn = scenes.turn_of(scenes.say(text))
        Conversation.objects.update(busy_mode="steer")
        return turn

    return said


@pytest.fixture
def mock_worker(var: Path) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(var).start()
    yield worker
    worker.stop()


@pytest.fixture
def codex(ada: Identity, settings, var: Path, model_emulator: ModelEmulator) -> Iterator[Callable[[], CeleryWorker]]:
    """Ada asks Codex; start workers that can."""
    Identity.objects.update(provider_chain=["codex"])
    credential = {"OPENAI_API_KEY": "sk-canary-not-a-key", "OPENAI_BASE_URL": f"{model_emulator.url}/v1"}
    for name, value in credential.items():
        setattr(settings, name, value)
    started: list[CeleryWorker] = []

    def start() -> CeleryWorker:
        started.append(CeleryWorker(var, **credential, FLEET_DETACHED_SECONDS="1").start())
        return started[-1]

    yield start
    for worker in started:
        worker.stop()


def state_of(turn: Turn) -> str:
    return str(Turn.objects.get(pk=turn.pk).state)


def ends(turn: Turn) -> Turn:
    """Sweep as the runner does until the turn is over, and return it."""

    def over() -> Turn | None:
        actions.sweep()
        conversation_actions.sweep()
        row = Turn.objects.select_related("execution").get(pk=turn.pk)
        return row if row.ended_at else None

    return eventually(over, f"turn {turn.pk} to end", seconds=180)


def under_way(turn: Turn) -> Execution:
    return until(running, Turn.objects.get(pk=turn.pk).execution)


class TestMock:
    def test_a_message_reaches_the_running_turn_and_is_answered_with_it(self, mock_worker: CeleryWorker, say: Say):
        first = say("Tell me of cats. mock:slow=8")
        under_way(first)
        second = say("And of dogs.")
        eventually(lambda: state_of(second) == "joined", "the turn that waited to be joined")
        execution = ends(first).execution
        assert "cats" in execution.answer and "dogs" in execution.answer
        assert execution.events.get(kind=EventKind.STEERED).payload["text"] == "And of dogs."
        assert Execution.objects.count() == 1
        assert Message.objects.filter(author="bot").count() == 1

    def test_without_a_hint_the_clock_finds_it(self, mock_worker: CeleryWorker, say: Say, monkeypatch):
        first = say("Tell me of cats. mock:slow=8")
        under_way(first)
        monkeypatch.setattr(live, "send", lambda topic, payload: None)
        second = say("And of dogs.")
        eventually(lambda: state_of(second) == "joined", "the turn that waited to be joined")
        assert "dogs" in ends(first).execution.answer

    def test_what_it_refuses_follows_up(self, mock_worker: CeleryWorker, say: Say):
        first = say("Tell me of cats. mock:slow=5 mock:steer=refuse")
        under_way(first)
        second, third = say("And of dogs."), say("And of birds.")
        assert "dogs" not in ends(first).execution.answer
        assert "dogs" in ends(second).execution.answer
        assert "birds" in ends(third).execution.answer

    @pytest.mark.parametrize(("wish", "where"), [("mute", "first"), ("deaf", "second")])
    def test_where_it_gives_no_answer_its_notes_decide_at_the_end(
        self, mock_worker: CeleryWorker, say: Say, wish: str, where: str
    ):
        first = say(f"Tell me of cats. mock:slow=8 mock:steer={wish}")
        under_way(first)
        second, third = say("And of dogs."), say("And of birds.")
        answers = [ends(turn).execution for turn in (first, second, third)]
        heard = ["dogs" in execution.answer if execution else False for execution in answers]
        assert heard == [where == "first", where == "second", False]
        assert [offer.doubtful for offer in Offer.objects.all()] == [False, False]

    def test_a_worker_that_is_killed_before_it_hands_over_loses_nothing(self, mock_worker: CeleryWorker, say: Say):
        first = say("Tell me of cats. mock:hang")
        under_way(first)
        psutil.Process(mock_worker.process.pid).suspend()
        second = say("And of dogs.")
        mock_worker.kill()
        assert ends(first).state in ("replied", "interrupted")  # Codex may have noted a whole answer before it ended
        assert Offer.objects.get().state == "returned"
        mock_worker.start()
        assert "dogs" in ends(second).execution.answer


@pytest.mark.realcli
class TestCodex:
    def test_codex_takes_it_into_the_running_turn(self, codex, say: Say, model_emulator: ModelEmulator):
        gate = model_emulator.hold("cats", STORY, after_events=6)
        codex()
        first = say("Tell me of cats.")
        model_emulator.wait_for_requests(1)
        second = say("And of dogs.")
        eventually(lambda: state_of(second) == "joined", "Codex to confirm")
        gate.release()
        execution = ends(first).execution
        assert execution.answer.endswith("You said: And of dogs.")
        assert [request.said for request in model_emulator.requests] == ["Tell me of cats.", "And of dogs."]
        assert (execution.cost_nano_usd, Execution.objects.count()) != (None, 2)

    def test_killed_after_the_confirmation_it_belongs_to_the_turn_that_nobody_went_on_with(
        self, codex, say: Say, model_emulator: ModelEmulator
    ):
        model_emulator.hold("cats", STORY, after_events=6)
        worker = codex()
        first = say("Tell me of cats.")
        model_emulator.wait_for_requests(1)
        second = say("And of dogs.")
        eventually(lambda: state_of(second) == "joined", "Codex to confirm")
        worker.kill()
        assert ends(first).state in ("replied", "interrupted")  # Codex may have noted a whole answer before it ended
        assert [offer.state for offer in Offer.objects.all()] == ["taken"]
        assert Turn.objects.exclude(pk__in=(first.pk, second.pk)).count() == 0

    def test_killed_between_hand_over_and_answer_what_codex_did_not_note_is_answered_once(
        self, codex, say: Say, model_emulator: ModelEmulator
    ):
        model_emulator.hold("cats", STORY, after_events=6)
        worker = codex()
        first = say("Tell me of cats.")
        row = under_way(first)
        model_emulator.wait_for_requests(1)
        frozen = [one for one in psutil.Process(row.pid).children(recursive=True) if "codex" in one.name()]
        for process in frozen:
            process.suspend()
        second = say("And of dogs.")
        eventually(lambda: Offer.objects.filter(state="handed").exists(), "the message to be handed over")
        worker.kill()
        assert ends(first).state in ("replied", "interrupted")  # Codex may have noted a whole answer before it ended
        offer = Offer.objects.get()
        assert (offer.state, offer.doubtful, frozen != []) == ("returned", False, True)
        codex()
        assert "And of dogs." in ends(second).execution.answer
        assert [one.said for one in model_emulator.requests].count("And of dogs.") == 1

    def test_killed_between_answer_and_record_codexs_transcript_tells_that_it_was_taken(
        self, codex, say: Say, model_emulator: ModelEmulator
    ):
        gate = model_emulator.hold("cats", STORY, after_events=6)
        model_emulator.hold("dogs", STORY, after_events=6)
        worker = codex()
        first = say("Tell me of cats.")
        row = under_way(first)
        model_emulator.wait_for_requests(1)
        second = say("And of dogs.")
        eventually(lambda: state_of(second) == "joined", "Codex to confirm")
        gate.release()
        eventually(lambda: len(model_emulator.requests) == 2, "Codex to ask the model for it")
        worker.kill()
        forget(row, first, second)
        assert ends(first).state in ("replied", "interrupted")  # Codex may have noted a whole answer before it ended
        offer = Offer.objects.get()
        assert (offer.state, offer.doubtful, state_of(second)) == ("taken", False, "joined")
        assert ExecutionState(Execution.objects.get().state) == ExecutionState.LOST


def forget(execution: Execution, running_turn: Turn, waiting: Turn) -> None:
    """Put the database back to where it was before the worker wrote down that Codex had confirmed."""
    from tests.triggers import switched_off

    with switched_off():
        Offer.objects.update(state="handed", decided_at=None)
        running_turn.inbound.filter(text="And of dogs.").update(turn=waiting)
        Turn.objects.filter(pk=waiting.pk).update(state="queued", taken_by=None, ended_at=None)
