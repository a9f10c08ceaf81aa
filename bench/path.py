"""What a message costs inside, stage by stage: statements sent to PostgreSQL and milliseconds of one thread, nothing else running.

No provider, no network: the actions alone, as gateway and worker call them, on an embedded PostgreSQL of its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench.figures import Figure, p50
from fleet.platform.embedded import EmbeddedPostgres

WARM_UP = 20
MESSAGES = 100


def run() -> list[Figure]:
    """Take messages through their whole life and count."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ |= {"FLEET_VAR": f"{directory}/var", "FLEET_LOG_LEVEL": "ERROR"}
        server = EmbeddedPostgres(Path(directory) / "postgres", throw_away=True)
        os.environ["DATABASE_URL"] = server.url
        server.start()
        try:
            return _measured()
        finally:
            server.stop()


def _measured() -> list[Figure]:
    os.environ["DJANGO_SETTINGS_MODULE"] = "fleet.settings.headless"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    stages = Stages()
    life = _life()
    for number in range(WARM_UP + MESSAGES):
        stages.counting = number >= WARM_UP
        life(stages)
    return stages.figures()


class Stages:
    """Counts what happens inside `with stages("name"):`."""

    def __init__(self) -> None:
        self.counting = False
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._statements: dict[str, list[int]] = defaultdict(list)

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work and note what it took; a timed round and a counted one are not the same."""
        from django.db import connection

        sent = 0

        def count(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
            nonlocal sent
            sent += 1
            return execute(sql, params, many, context)

        watch: AbstractContextManager[Any] = connection.execute_wrapper(count)
        with watch:
            began = time.perf_counter()
            done = work()
            took = time.perf_counter() - began
        if self.counting:
            self._seconds[name].append(1000 * took)
            self._statements[name].append(sent)
        return done

    def figures(self) -> list[Figure]:
        """Return one figure per stage, and their sum."""
        rows = [
            Figure(f"Path, {name}", p50(taken), "ms", note=f"{p50(self._statements[name]):.0f} statements")
            for name, taken in self._seconds.items()
        ]
        sent = sum(p50(numbers) for numbers in self._statements.values())
        return [*rows, Figure("Path, all stages", sum(row.value for row in rows), "ms", note=f"{sent:.0f} statements")]


def _life() -> Callable[[Stages], None]:
    """Set the scene and return what takes one message through its life."""
    from budgets.states import Billing
    from conversations import actions
    from execution import actions as execution_actions
    from execution.engine import workspace
    from execution.models import Worker
    from execution.ports import Usage
    from execution.shim import processes
    from execution.states import EventKind
    from identities.models import ChatAccount
    from tests.conversations import scenes
    from tests.factories.execution import set_the_table

    scenes.bot("ada")
    ChatAccount.objects.create(platform="telegram", external_id="501", person=scenes.operator("eva"))
    set_the_table()
    facts = processes.facts(os.getpid())
    worker: Worker = execution_actions.register_worker(process=facts, slots=4, by=scenes.WORKER)

    def life(stages: Stages) -> None:
        received = stages("receive", lambda: actions.receive(scenes.message(), by=scenes.GATEWAY))
        intake = stages("intake and admission", lambda: actions.process(received.inbound_id))
        queued = scenes.turn_of(intake).execution
        execution = stages(
            "claim",
            lambda: execution_actions.claim(
                execution_id=queued.pk, epoch=queued.epoch, worker_id=worker.pk, by=scenes.WORKER
            ),
        )
        stages("prompt", lambda: workspace.prompt_for(execution))
        stages(
            "release", lambda: execution_actions.release(execution=execution, process=facts, by=scenes.WORKER)
        )
        stages(
            "first words",
            lambda: execution_actions.record_events(
                execution=execution, first_sequence=1, lines=[(EventKind.TEXT, {"text": "Good day."})]
            ),
        )
        usage = Usage(f"m{execution.pk}", "claude-haiku-4-5", input_uncached=900, output=40)
        stages(
            "meter",
            lambda: execution_actions.meter(execution=execution, usages=[usage], billing=Billing.API),
        )
        ending = execution_actions.Ending("succeeded", "ok", answer="Good day.", gone=False)
        stages(
            "finish",
            lambda: execution_actions.finish(
                execution=execution, ending=ending, by=scenes.WORKER, first_sequence=2
            ),
        )
        (delivery,) = stages(
            "claim of the delivery", lambda: actions.claim_deliveries(["telegram:ada"], by=scenes.GATEWAY)
        )
        stages("receipt", lambda: actions.delivered(delivery_id=delivery.pk, receipts=["1"], by=scenes.GATEWAY))

    return life
