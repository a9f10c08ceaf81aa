"""`manage.py say`: the answer on stdout, everything about it on stderr, the outcome as exit code."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection

from conversations import actions as conversation_actions
from conversations.models import Conversation, InboundMessage, Turn
from execution import actions as execution_actions
from execution.models import Execution
from execution.states import AT_LEAST, UNKNOWN, Cause, EventKind, ExecutionState, OutcomeClass
from fleet.following import follow
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.management.commands import say
from governance import actions as governance_actions
from identities.models import Identity, Person
from tests.architecture.source import ROOT
from tests.commands.conftest import Run
from tests.conversations import scenes
from tests.execution.logins import CHAIN, two_logins
from tests.factories.execution import WorkerFactory

__all__ = ["two_logins"]
pytestmark = pytest.mark.usefixtures("transactional_db", "ada", "people")


@contextmanager
def worker(work: Callable[[Execution], None]) -> Iterator[None]:
    """Somebody who takes the next admitted turn and works on it, in a thread with a connection of its own."""

    def begin() -> None:
        try:
            wait_for(lambda: Turn.objects.filter(state="admitted").exists())
            work(scenes.running(Turn.objects.get(state="admitted")))
        finally:
            connection.close()

    thread = threading.Thread(target=begin)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def answering(*pieces: str) -> Callable[[Execution], None]:
    def work(execution: Execution) -> None:
        lines = [(EventKind.TEXT, {"text": piece}) for piece in pieces]
        if lines:
            execution_actions.record_events(execution=execution, first_sequence=1, lines=lines)
        scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="".join(pieces) or "Good day.")

    return work


def failing(execution: Execution) -> None:
    scenes.end(execution, ExecutionState.FAILED, OutcomeClass.ERROR, sentence="The provider ended badly.")


class TestAnAnswer:
    def test_goes_to_stdout_and_its_receipt_to_stderr(self, run: Run) -> None:
        with worker(answering("Good ", "day.")):
            said = run("say", "ada", "Hello")

        assert (said.code, said.out) == (0, "Good day.\n")
        for part in ("ada", "mock", "tokens in", "queue", "engine"):
            assert part in said.err

    def test_is_printed_even_when_nothing_of_it_was_streamed(self, run: Run) -> None:
        with worker(answering()):
            said = run("say", "ada", "Hello")

        assert (said.code, said.out) == (0, "Good day.\n")

    def test_that_nobody_counted_has_an_unknown_cost(self, run: Run) -> None:
        def uncounted(execution: Execution) -> None:
            Execution.objects.filter(pk=execution.pk).update(cost_nano_usd=None, cost_basis=UNKNOWN)
            failing(execution)

        with worker(uncounted):
            said = run("say", "ada", "Hello")

        assert "· cost unknown ·" in said.err

    def test_that_was_cut_off_cost_at_least_what_was_counted(self, run: Run) -> None:
        def cut_off(execution: Execution) -> None:
            Execution.objects.filter(pk=execution.pk).update(cost_nano_usd=12_000_000, cost_basis=AT_LEAST)
            failing(execution)

        with worker(cut_off):
            said = run("say", "ada", "Hello")

        assert "at least $0.0120" in said.err

    def test_that_waits_for_an_api_says_so(self, run: Run) -> None:
        def waits(execution: Execution) -> None:
            waiting = (EventKind.RETRYING, {"text": "Claude asks us to wait; trying again at 14:05:00 UTC."})
            execution_actions.record_events(execution=execution, first_sequence=1, lines=[waiting])
            scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.")

        with worker(waits):
            said = run("say", "ada", "Hello")

        assert (said.code, said.out) == (0, "Good day.\n")
        assert "Claude asks us to wait" in said.err

    def test_comes_with_what_the_person_is_told_with_it(self, run: Run) -> None:
        def afresh(execution: Execution) -> None:
            told = {"details": {"told": ["I began afresh."]}}
            scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.", fields=told)

        with worker(afresh):
            said = run("say", "ada", "Hello")

        assert (said.code, said.out) == (0, "Good day.\n")
        assert said.err.count("I began afresh.") == 1

    def test_of_another_provider_says_once_why_it_is_not_the_first(
        self, run: Run, two_logins: None, ada: Identity
    ) -> None:
        Identity.objects.filter(pk=ada.pk).update(provider_chain=CHAIN)

        def hands_over(execution: Execution) -> None:
            turn = execution.turn
            refused = {"cause": Cause.USAGE_LIMIT, "retry_at": clock.now() + dt.timedelta(hours=1)}
            scenes.end(execution, ExecutionState.FAILED, OutcomeClass.LIMIT, **refused)
            conversation_actions.advance(turn.conversation_id)
            answering("Good day.")(scenes.running(Turn.objects.get()))

        with worker(hands_over):
            said = run("say", "ada", "Hello")

        assert (said.code, said.out) == (0, "Good day.\n")
        assert said.err.count("meanwhile") == 1

    def test_is_one_json_object_on_request(self, run: Run) -> None:
        with worker(answering("Good day.")):
            said = run("say", "ada", "Hello", "--json")

        shown = json.loads(said.out)
        assert (shown["status"], shown["text"]) == ("replied", "Good day.")
        assert shown["receipt"]["engine_ms"] >= 0
        assert shown["inbound_id"] == InboundMessage.objects.get().pk

    def test_of_the_running_turn_is_shown_when_that_one_took_the_message(self, run: Run) -> None:
        with worker(lambda _: None):
            run("say", "ada", "Hello", "--wait", "2")
        execution = Execution.objects.get()
        run("say", "ada", "/busy steer")

        def takes() -> None:
            try:
                wait_for(lambda: Execution.objects.filter(offered=1).exists())
                offer = execution_actions.hand(execution=execution, by=scenes.WORKER)
                execution_actions.take_offer(execution=execution, offer=offer, by=scenes.WORKER)
                answering("Both, then.")(execution)
            finally:
                connection.close()

        thread = threading.Thread(target=takes)
        thread.start()
        said = run("say", "ada", "And this")
        thread.join()

        assert (said.code, said.out) == (0, "Both, then.\n")
        assert "took this message" in said.err

    def test_of_a_command_comes_at_once(self, run: Run) -> None:
        said = run("say", "ada", "/help")

        assert said.code == 0
        assert "/stop" in said.out


class TestWhoSpeaksWhere:
    def test_it_is_the_first_administrator_unless_somebody_is_named(self, run: Run, people: dict[str, Person]) -> None:
        with worker(answering("Yes.")):
            run("say", "ada", "Hello")
        with worker(answering("Yes.")):
            run("say", "ada", "Hello", "--as", "operator")

        assert [turn.person for turn in Turn.objects.order_by("pk")] == [people["admin"], people["operator"]]

    def test_a_conversation_goes_on_until_a_new_one_is_asked_for(self, run: Run) -> None:
        for words in ([], [], ["--new"], []):
            with worker(answering("Yes.")):
                run("say", "ada", "Hello", *words)

        first, second = Conversation.objects.order_by("pk")
        assert [turn.conversation for turn in Turn.objects.order_by("pk")] == [first, first, second, second]

    def test_the_text_can_come_from_stdin(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße\n".encode())))
        with worker(answering("Yes.")):
            run("say", "ada", "-")

        assert InboundMessage.objects.get().text == "Grüße\n"


class TestARefusal:
    @pytest.mark.parametrize(
        ("words", "code"),
        [(("nobody", "Hello"), "unknown_bot"), (("ada", ""), "empty"), (("ada", "/dance"), "unknown_command")],
    )
    def test_has_a_reason_and_a_next_step(self, run: Run, words: tuple[str, str], code: str) -> None:
        said = run("say", *words)

        assert (said.code, said.out) == (2, "")
        assert said.err.strip()
        assert json.loads(run("say", *words, "--json").out)["code"] == code

    def test_of_bytes_that_are_no_text(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))

        assert run("say", "ada", "-").code == 2
        assert InboundMessage.objects.get().state == "refused"

    def test_by_a_kill_order_names_it(self, run: Run) -> None:
        governance_actions.stop(scope="fleet", mode="stop", reason="drill", by=Actor.system("test"))

        said = run("say", "ada", "Hello")

        assert said.code == 2
        assert "drill" in said.err

    def test_for_somebody_without_the_right(self, run: Run) -> None:
        assert run("say", "ada", "Hello", "--as", "viewer").code == 2

    def test_for_somebody_nobody_knows(self, run: Run) -> None:
        said = run("say", "ada", "Hello", "--as", "ghost")

        assert said.code == 2
        assert "ghost" in said.err

    def test_when_there_is_nobody_to_speak_as(self, run: Run) -> None:
        Person.objects.filter(username="admin").update(is_active=False)

        said = run("say", "ada", "Hello")

        assert said.code == 2
        assert "--as" in said.err


class TestATurnThatDoesNotEndWell:
    def test_fails_with_its_sentence(self, run: Run) -> None:
        with worker(failing):
            said = run("say", "ada", "Hello")

        assert said.code == 3
        assert said.err.count("The provider ended badly.") == 1

    def test_is_left_alone_when_time_is_over(self, run: Run) -> None:
        said = run("say", "ada", "Hello", "--wait", "0.2")

        assert said.code == 5
        assert Turn.objects.get().state == "admitted"
        assert "goes on without you" in said.err

    def test_says_that_nobody_is_there_to_work(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleet.management.commands.say._WORRY_AFTER_SECONDS", 0.05)

        assert "No worker is running" in run("say", "ada", "Hello", "--wait", "2").err

    def test_says_that_every_worker_is_drained(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleet.management.commands.say._WORRY_AFTER_SECONDS", 0.05)
        WorkerFactory(draining_at=clock.now())
        assert "Every worker is drained" in run("say", "ada", "Hello", "--wait", "2").err

    @pytest.fixture
    def listening(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """Set when the command follows the turn: a Ctrl-C before that would be the test run's own."""
        event = threading.Event()
        monkeypatch.setattr(say, "follow", lambda *turn, **more: event.set() or follow(*turn, **more))
        return event

    def test_is_stopped_by_a_ctrl_c_that_came_while_it_was_sent(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accept = conversation_actions.accept

        def interrupted(*message: Any, **more: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return accept(*message, **more)

        monkeypatch.setattr(conversation_actions, "accept", interrupted)
        said = run("say", "ada", "Hello")

        assert said.code == 4
        assert Turn.objects.get().state == "stopped"

    def test_is_left_by_two_ctrl_c_before_it_was_sent(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def hangs(*_: Any, **__: Any) -> None:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

        before = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(conversation_actions, "accept", hangs)
        said = run("say", "ada", "Hello")

        assert said.code == 5
        assert "If the message was sent already" in said.err
        assert signal.getsignal(signal.SIGINT) == before, "it is given back to whoever heard it before"

    def test_without_a_database_says_what_to_do(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(*_: Any, **__: Any) -> None:
            raise OperationalError("the connection is lost")

        monkeypatch.setattr(conversation_actions, "accept", away)
        said = run("say", "ada", "Hello")

        assert said.code == 2
        assert "cannot reach its database" in said.err and "Try again" in said.err

    def test_is_stopped_by_ctrl_c(self, run: Run, listening: threading.Event) -> None:
        def work(execution: Execution) -> None:
            assert listening.wait(60)
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: Execution.objects.get(pk=execution.pk).stop_requested_at is not None)
            scenes.end(execution, ExecutionState.STOPPED, OutcomeClass.STOPPED, sentence="Stopped.")

        with worker(work):
            said = run("say", "ada", "Hello")

        assert said.code == 4
        assert "Ctrl-C" in said.err

    def test_is_left_by_a_second_ctrl_c(self, run: Run, listening: threading.Event) -> None:
        def work(execution: Execution) -> None:
            assert listening.wait(60)
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: Execution.objects.get(pk=execution.pk).stop_requested_at is not None)
            os.kill(os.getpid(), signal.SIGINT)

        with worker(work):
            said = run("say", "ada", "Hello")

        assert said.code == 5


@pytest.mark.parametrize(
    "words",
    [[], ["ada"], ["ada", "Hello", "--loud"], ["ada", "Hello", "--wait", "soon"], ["ada", "Hello", "--wait", "0"]],
)
def test_bad_usage_is_64(words: list[str]) -> None:
    done = subprocess.run([sys.executable, ROOT / "manage.py", "say", *words], capture_output=True, text=True)

    assert done.returncode == 64
    assert "usage:" in done.stderr
