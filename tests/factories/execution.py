"""Executions, workers and bots as tests need them: admitted and paid for, with no conversation around them."""

from __future__ import annotations

import itertools
import os
import subprocess
import uuid
from typing import Any

import factory

from budgets import actions as budget_actions
from execution import actions
from execution.models import Execution, Worker
from execution.ports import ProcessFacts
from execution.shim import processes
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from governance import queries as governance_queries
from identities.models import Identity, ToolGrant
from identities.states import IdentityState, ToolDecision

BY = Actor.system("test")
_numbers = itertools.count(1)


class BotFactory(factory.django.DjangoModelFactory):
    """An active bot; `tools=["Bash"]` grants them."""

    class Meta:
        model = Identity

    slug = factory.Sequence(lambda number: f"bot-{number}")
    name = factory.LazyAttribute(lambda bot: bot.slug.title())
    state = IdentityState.ACTIVE
    model = "claude-haiku-4-5"

    @factory.post_generation
    def tools(self, create: bool, extracted: list[str] | None, **_: Any) -> None:
        for pattern in extracted or []:
            ToolGrant.objects.create(identity=self, pattern=pattern, decision=ToolDecision.ALLOW)


class WorkerFactory(factory.django.DjangoModelFactory):
    """A worker whose process is this test's, so that it counts as alive."""

    class Meta:
        model = Worker

    host = factory.LazyFunction(processes.host)
    boot_id = factory.LazyFunction(processes.boot_id)
    pid = factory.LazyFunction(os.getpid)
    pid_started_at = factory.LazyFunction(lambda: processes.facts(os.getpid()).started_at)
    slots = 4


def set_the_table() -> None:
    """Prices, budgets and the default policy: what every admission stands on."""
    governance_actions.ensure_default_policy(by=BY)
    budget_actions.import_prices(by=BY)
    budget_actions.ensure_default_budgets(by=BY)


def queued(
    text: str = "Hello", *, identity: Identity | None = None, provider: str = "mock", **fields: Any
) -> Execution:
    """An execution as admission leaves it: reserved and queued."""
    identity = identity or BotFactory()
    model = "mock-1" if provider == "mock" else identity.model
    reservation = budget_actions.reserve(
        attempt=f"test:{uuid.uuid4()}", scopes={"fleet": "*", "identity": identity.slug}, model=model, by=BY
    )
    return actions.queue(
        **{
            "origin_kind": "test",
            "origin_id": str(next(_numbers)),
            "identity": identity,
            "provider": provider,
            "model": model,
            "texts": [{"uuid": str(uuid.uuid4()), "text": text}],
            "session_id": str(uuid.uuid4()),
            "session_turns": 0,
            "reservation_id": reservation.pk,
            "kill_epoch": governance_queries.kill_epoch(),
            "versions": {},
            "by": BY,
            **fields,
        }
    )


def claimed(execution: Execution | None = None, *, worker: Worker | None = None) -> Execution:
    """An execution a worker has claimed; its spend gate is closed."""
    execution = execution or queued()
    worker = worker or WorkerFactory()
    taken = actions.claim(execution_id=execution.pk, epoch=execution.epoch, worker_id=worker.pk, by=BY)
    assert taken is not None, "nothing to claim"
    return taken


def running(
    execution: Execution | None = None, *, worker: Worker | None = None, process: ProcessFacts | None = None
) -> Execution:
    """An execution whose spend gate is open."""
    execution = claimed(execution, worker=worker)
    actions.release(execution=execution, process=process, by=BY)
    return execution


def dead_process() -> ProcessFacts:
    """The facts of a process of this host that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        seen = processes.facts(process.pid)
        process.kill()
    return seen
