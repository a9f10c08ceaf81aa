"""Handing over what is said meanwhile: one message at a time, never late, and the end of the turn waits for the answer."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, transaction

from execution import actions
from execution.engine import steering
from execution.engine.steering import Steering
from execution.models import Execution, Offer
from execution.ports import UserText
from execution.providers.steering import Steered
from execution.states import OFFER, EventKind, ExecutionState, OutcomeClass
from fleet.kernel.exceptions import StateConflict
from fleet.kernel.transitions import move
from tests.execution.running import eventually
from tests.factories import execution as made
from tests.factories.execution import BY

pytestmark = pytest.mark.django_db(transaction=True)
Answer = Callable[[UserText], Steered]


class Provider:
    """A run that answers as it is told, and remembers what it was given."""

    def __init__(self, answer: Answer = lambda _: Steered.TAKEN) -> None:
        self.answer, self.given = answer, list[str]()

    def steer(self, text: UserText) -> Steered:
        self.given.append(text.text)
        return self.answer(text)


def offered(execution: Execution, *texts: str) -> int:
    for text in texts:
        assert actions.offer(execution_id=execution.pk, text={"uuid": str(uuid.uuid4()), "text": text}, by=BY)
    return Execution.objects.get(pk=execution.pk).offered


def states() -> list[str]:
    return list(Offer.objects.order_by("pk").values_list("state", flat=True))


def hand_over(execution: Execution, provider: Any, count: int) -> tuple[Steering, list[Any]]:
    """Let a steering look once, and wait until it has done what there is to do."""
    noted: list[Any] = []
    hands = Steering(execution, by=BY, note=lambda kind, **payload: noted.append((kind, payload["text"])))
    hands.begin(provider)
    hands.look(offered=count)
    eventually(lambda: hands._thread is None, "the hand-over to be over")
    return hands, noted


def test_what_is_offered_is_handed_over_in_its_order_and_noted_in_the_turn() -> None:
    execution, provider = made.running(), Provider()
    _, noted = hand_over(execution, provider, offered(execution, "One", "Two", "Three"))
    assert provider.given == ["One", "Two", "Three"]
    assert states() == ["taken"] * 3
    assert noted == [(EventKind.STEERED, text) for text in ("One", "Two", "Three")]


def test_after_a_refusal_nothing_more_is_handed_over() -> None:
    answers = iter([Steered.TAKEN, Steered.REFUSED])
    execution, provider = made.running(), Provider(lambda _: next(answers))
    hand_over(execution, provider, offered(execution, "One", "Two", "Three"))
    assert (provider.given, states()) == (["One", "Two"], ["taken", "returned", "returned"])


def test_without_an_answer_nothing_more_is_handed_over_and_nothing_is_claimed() -> None:
    execution, provider = made.running(), Provider(lambda _: Steered.UNKNOWN)
    hands, noted = hand_over(execution, provider, offered(execution, "One", "Two"))
    hands.look(offered=offered(execution, "Three"))
    eventually(lambda: hands._thread is None, "the hand-over to be over")
    assert (provider.given, states(), noted) == (["One"], ["handed", "offered", "offered"], [])


def test_a_hand_over_that_was_held_up_is_not_begun(monkeypatch) -> None:
    monkeypatch.setattr(steering, "LATEST_SECONDS", -1.0)
    execution, provider = made.running(), Provider()
    hand_over(execution, provider, offered(execution, "One"))
    assert (provider.given, states()) == ([], ["returned"])


def test_what_cannot_be_written_is_left_to_the_end_of_the_turn(monkeypatch) -> None:
    def away(**_: object) -> None:
        raise OperationalError("the database is away")

    execution, provider = made.running(), Provider()
    count = offered(execution, "One")
    monkeypatch.setattr("execution.actions.take_offer", away)
    hand_over(execution, provider, count)
    assert (provider.given, states()) == (["One"], ["handed"])


def test_the_end_of_a_turn_waits_for_the_answer_and_nothing_is_handed_over_after_it() -> None:
    asked, answers = threading.Event(), threading.Event()

    def slowly(_: UserText) -> Steered:
        asked.set()
        answers.wait(30)
        return Steered.TAKEN

    execution, provider = made.running(), Provider(slowly)
    hands = Steering(execution, by=BY, note=lambda *_, **__: None)
    hands.begin(provider)
    hands.look(offered=offered(execution, "One", "Two"))
    assert asked.wait(30)
    ending = threading.Thread(target=hands.end)
    ending.start()
    eventually(lambda: hands._over, "the end to be told")
    assert (ending.is_alive(), states()) == (True, ["handed", "offered"])
    answers.set()
    ending.join(30)
    assert (provider.given, states()) == (["One"], ["taken", "offered"])


def test_before_the_turn_has_begun_nothing_is_handed_over() -> None:
    execution = made.running()
    hands = Steering(execution, by=BY, note=lambda *_, **__: None)
    hands.look(offered=offered(execution, "One"))
    assert (hands._thread, states()) == (None, ["offered"])


@pytest.mark.parametrize("state", [ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.STOPPED])
def test_every_end_decides_what_is_left(state: ExecutionState) -> None:
    execution = made.running()
    offered(execution, "One", "Two")
    ending = actions.Ending(state, OutcomeClass.ERROR, "It ended.", gone=True)
    actions.finish(execution=execution, ending=ending, by=BY)
    assert states() == ["returned", "returned"]
    assert not actions.offer(execution_id=execution.pk, text={"uuid": str(uuid.uuid4()), "text": "Late"}, by=BY)


def test_a_message_is_offered_once_in_its_life() -> None:
    execution, text = made.running(), {"uuid": str(uuid.uuid4()), "text": "One"}
    actions.offer(execution_id=execution.pk, text=text, by=BY)
    with pytest.raises(IntegrityError):
        actions.offer(execution_id=execution.pk, text=text, by=BY)


def test_the_database_lets_one_be_handed_at_a_time_and_none_go_back_once_it_is_decided() -> None:
    execution = made.running()
    offered(execution, "One", "Two")
    first, second = Offer.objects.order_by("pk")
    actions.hand(execution=execution, by=BY)
    with pytest.raises(IntegrityError), transaction.atomic():
        Offer.objects.filter(pk=second.pk).update(state="handed")
    with pytest.raises(IntegrityError), transaction.atomic():
        Offer.objects.filter(pk=first.pk).update(state="taken")
    actions.return_offers(execution=execution, by=BY)
    first.refresh_from_db()
    with pytest.raises(StateConflict):
        move(first, OFFER, "taken", by=BY, event="execution.offer.taken")
