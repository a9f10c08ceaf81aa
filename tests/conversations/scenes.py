"""Short ways to set a scene: somebody says something, a worker answers it."""

from __future__ import annotations

import itertools
import os
from typing import Any

from conversations import actions
from conversations.actions import Intake
from conversations.models import Turn
from conversations.ports import UnifiedMessage
from execution import actions as execution_actions
from execution.actions import Ending
from execution.models import Execution
from execution.ports import ProcessFacts
from execution.states import ExecutionState, OutcomeClass
from fleet.kernel.actors import Actor
from identities.models import Identity, Person

GATEWAY = Actor.system("gateway:telegram")
WORKER = Actor.system("worker")
_numbers = itertools.count(1)


def message(text: str = "Hello", **fields: Any) -> UnifiedMessage:
    """A private Telegram message of account 501 to ada."""
    return UnifiedMessage(
        **{
            "account": "telegram:ada",
            "event_id": f"update-{next(_numbers)}",
            "identity_slug": "ada",
            "chat_id": "501",
            "sender_id": "501",
            "sender_name": "Eva",
            "text": text,
            **fields,
        }
    )


def say(text: str = "Hello", **fields: Any) -> Intake:
    """Receive and process one message."""
    return actions.accept(message(text, **fields), by=GATEWAY)[1]


def turn_of(intake: Intake) -> Turn:
    """The turn a message became."""
    return Turn.objects.get(pk=intake.turn_id)


def facts() -> ProcessFacts:
    """A process that passes for a worker."""
    return ProcessFacts(pid=os.getpid(), started_at=1.0, host="here", boot_id="boot")


def claimed(turn: Turn) -> Execution:
    """A worker takes the turn's execution; its gate is still closed."""
    worker = execution_actions.register_worker(process=facts(), slots=4, by=WORKER)
    execution = Turn.objects.get(pk=turn.pk).execution
    taken = execution_actions.claim(execution_id=execution.pk, epoch=execution.epoch, worker_id=worker.pk, by=WORKER)
    assert taken is not None
    return taken


def running(turn: Turn) -> Execution:
    """A worker has opened the spend gate of the turn's execution."""
    execution = claimed(turn)
    execution_actions.release(execution=execution, process=None, by=WORKER)
    return execution


def answer(turn: Turn, text: str = "Good day.") -> Turn:
    """A worker runs the turn and answers."""
    end(running(turn), ExecutionState.SUCCEEDED, OutcomeClass.OK, answer=text)
    turn.refresh_from_db()
    return turn


def end(execution: Execution, state: ExecutionState, outcome: OutcomeClass, **fields: Any) -> None:
    """A worker closes an execution it owns."""
    ending = Ending(state, outcome, **{"gone": True, **fields})
    execution_actions.finish(execution=execution, ending=ending, by=WORKER)


def operator(username: str = "eva") -> Person:
    """A person with the rights of an operator."""
    return Person.objects.create_user(username=username, roles=["operator"])


def bot(slug: str = "ada", **fields: Any) -> Identity:
    """An active bot."""
    return Identity.objects.create(slug=slug, name=slug.capitalize(), state="active", **fields)
