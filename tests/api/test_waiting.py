"""`?wait=` holds the answer back until the turn has ended, or time is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from conversations.models import Conversation, Turn
from execution import actions as execution_actions
from execution.states import ExecutionState, OutcomeClass
from identities.models import Identity, Person
from tests.api.conftest import Call, token_of
from tests.conversations import scenes

HELLO = {"identity": "ada", "text": "Hello"}


@pytest.fixture
def token(transactional_db: None, ada: Identity, eva: Person) -> str:
    return token_of(eva)


@contextmanager
def worker(state: ExecutionState, outcome: OutcomeClass, **ending: str) -> Iterator[None]:
    """Somebody who ends the first admitted turn, in a thread with a connection of its own."""

    def work() -> None:
        try:
            give_up = time.monotonic() + 30
            while not Turn.objects.filter(state="admitted").exists() and time.monotonic() < give_up:
                time.sleep(0.02)
            scenes.end(scenes.running(Turn.objects.get()), state, outcome, **ending)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_gives_the_reply_with_its_receipt_in_the_same_answer(call: Call, token: str) -> None:
    with worker(ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day."):
        answer = call("POST", "/message?wait=30", HELLO, token=token)

    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["ended"], body["text"]) == ("replied", True, "Good day.")
    assert body["receipt"]["engine_ms"] >= 0
    assert body["turn_id"] and body["inbound_id"]


def test_tells_a_failure_as_a_turn_that_failed(call: Call, token: str) -> None:
    with worker(ExecutionState.FAILED, OutcomeClass.ERROR, sentence="The provider ended badly."):
        answer = call("POST", "/message?wait=30", HELLO, token=token)

    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["sentence"] == "The provider ended badly."


def test_gives_the_ids_when_time_is_over(call: Call, token: str) -> None:
    answer = call("POST", "/message?wait=0.2", HELLO, token=token)

    assert (answer.status_code, answer.json()["status"]) == (202, "admitted")


def test_gives_the_reply_to_a_repetition_that_comes_later(call: Call, token: str) -> None:
    key = {"Idempotency-Key": "k1"}
    call("POST", "/message", HELLO, token=token, **key)
    scenes.answer(Turn.objects.get(), "Good day.")

    answer = call("POST", "/message?wait=30", HELLO, token=token, **key)

    assert (answer.status_code, answer.json()["text"]) == (200, "Good day.")


def test_waits_where_the_running_turn_took_the_message(call: Call, token: str) -> None:
    call("POST", "/message", HELLO, token=token)
    first = Turn.objects.get()
    execution = scenes.running(first)
    Conversation.objects.update(busy_mode="steer")

    def take_and_answer() -> None:
        try:
            give_up = time.monotonic() + 30
            while (offer := execution_actions.hand(execution=execution, by=scenes.WORKER)) is None:
                assert time.monotonic() < give_up
                time.sleep(0.02)
            execution_actions.take_offer(execution=execution, offer=offer, by=scenes.WORKER)
            scenes.end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Both, then.")
        finally:
            connection.close()

    thread = threading.Thread(target=take_and_answer)
    thread.start()
    body = call("POST", "/message?wait=30", {**HELLO, "text": "And this"}, token=token).json()
    thread.join()

    assert (body["turn_id"], body["status"], body["text"]) == (first.pk, "replied", "Both, then.")
    joined = Turn.objects.get(state="joined")
    assert call("GET", f"/api/v1/turns/{joined.pk}/", token=token).json()["taken_by"] == first.pk
