"""What a message costs: the statements on its way are counted, so that nobody adds one without noticing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from budgets.states import Billing
from conversations import actions
from execution import actions as execution_actions
from execution import events
from execution.actions import Ending
from execution.engine import workspace
from execution.models import Execution
from execution.ports import Usage
from execution.shim import processes
from execution.states import EventKind, ExecutionState, OutcomeClass
from fleet.kernel import journal
from tests.conversations import scenes
from tests.conversations.scenes import GATEWAY, WORKER

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the statements sent to PostgreSQL, without the beginnings and ends of transactions."""
    sent: list[str] = []

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        sent.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield sent


def claimed() -> Execution:
    """The execution of a message in a conversation that has been going on, taken by a worker."""
    scenes.answer(scenes.turn_of(scenes.say("Hello")))
    return scenes.claimed(scenes.turn_of(scenes.say("And now?")))


def test_receiving(eva) -> None:
    with counted() as sent:
        actions.receive(scenes.message(), by=GATEWAY)
    assert len(sent) == 2


def test_intake_and_admission(eva) -> None:
    scenes.answer(scenes.turn_of(scenes.say("Hello")))
    received = actions.receive(scenes.message("And now?"), by=GATEWAY)
    with counted() as sent:
        actions.process(received.inbound_id)
    assert len(sent) == 29


def test_what_can_be_done_again_does_not_wait_for_the_disk_and_what_spends_does(eva, monkeypatch) -> None:
    seen: dict[str, str] = {}
    real = journal.record

    def record(event: str, **facts: Any) -> Any:
        with connection.cursor() as cursor:
            seen[event] = cursor.execute("SHOW synchronous_commit").fetchone()[0]
        return real(event, **facts)

    monkeypatch.setattr(journal, "record", record)
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit TO on")
    try:
        received = actions.receive(scenes.message(), by=GATEWAY)
        intake = actions.process(received.inbound_id)
        execution_actions.release(execution=scenes.claimed(scenes.turn_of(intake)), process=None, by=WORKER)
    finally:
        connection.close()
    assert (seen[events.QUEUED], seen[events.CLAIMED], seen[events.RELEASED]) == ("off", "off", "on")


def test_claim_prompt_and_release(eva) -> None:
    execution = claimed()
    workspace.prompt_for(execution)
    with counted() as sent:
        workspace.prompt_for(execution)
        execution_actions.release(execution=execution, process=None, by=WORKER)
    assert len(sent) == 5


def test_the_first_words_and_their_price(eva) -> None:
    execution = claimed()
    execution_actions.release(execution=execution, process=None, by=WORKER)
    with counted() as sent:
        execution_actions.record_events(
            execution=execution, first_sequence=1, lines=[(EventKind.TEXT, {"text": "Good day."})]
        )
    assert len(sent) == 1
    usage = Usage("m1", "claude-haiku-4-5", input_uncached=900, output=40)
    with counted() as sent:
        execution_actions.meter(execution=execution, usages=[usage], billing=Billing.API)
    assert len(sent) == 11


def test_the_end_and_the_delivery(eva) -> None:
    execution = claimed()
    execution_actions.release(execution=execution, process=processes.facts(os.getpid()), by=WORKER)
    ending = Ending(ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.", gone=False)
    with counted() as sent:
        execution_actions.finish(execution=execution, ending=ending, by=WORKER, first_sequence=1)
    assert len(sent) == 17
    (first,) = actions.claim_deliveries(["telegram:ada"])
    actions.delivered(delivery_id=first.pk, receipts=["1"], by=GATEWAY)
    with counted() as sent:
        (second,) = actions.claim_deliveries(["telegram:ada"])
    assert len(sent) == 2
    with counted() as sent:
        actions.delivered(delivery_id=second.pk, receipts=["2"], by=GATEWAY)
    assert len(sent) == 3
