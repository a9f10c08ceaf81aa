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
    stages, life = Stages(), Life()
    for number in range(WARM_UP + MESSAGES):
        stages.counting = number >= WARM_UP
        life.live(stages)
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


class Life:
    """One bot and one person, and a message's whole life between them. Made once Django is set up."""

    def __init__(self) -> None:
        from execution import actions as execution_actions
        from execution.shim import processes
        from identities.models import ChatAccount
        from tests.conversations import scenes
        from tests.factories.execution import set_the_table

        scenes.bot("ada")
        ChatAccount.objects.create(platform="telegram", external_id="501", person=scenes.operator("eva"))
        set_the_table()
        self.scenes, self.actions = scenes, execution_actions
        self.process = processes.facts(os.getpid())
        self.worker = execution_actions.register_worker(process=self.process, slots=4, by=scenes.WORKER)

    def live(self, stages: Stages) -> None:
        """Take one message from its arrival to the receipt of its answer."""
        self.end(stages, self.begin(stages, self.take_in(stages)))

    def take_in(self, stages: Stages) -> Any:
        """Return the execution that waits for a worker."""
        from conversations import actions

        received = stages("receive", lambda: actions.receive(self.scenes.message(), by=self.scenes.GATEWAY))
        intake = stages("intake and admission", lambda: actions.process(received.inbound_id))
        return self.scenes.turn_of(intake).execution

    def begin(self, stages: Stages, queued: Any) -> Any:
        """Return the execution once its gate is open."""
        from execution.engine import workspace

        facts = {
            "execution_id": queued.pk,
            "epoch": queued.epoch,
            "worker_id": self.worker.pk,
            "by": self.scenes.WORKER,
        }
        execution = stages("claim", lambda: self.actions.claim(**facts))
        stages("prompt", lambda: workspace.prompt_for(execution))
        gate = {"execution": execution, "process": self.process, "by": self.scenes.WORKER}
        stages("release", lambda: self.actions.release(**gate))
        return execution

    def end(self, stages: Stages, execution: Any) -> None:
        """Answer, be paid, and be delivered."""
        from budgets.states import Billing
        from conversations import actions
        from execution.ports import Usage
        from execution.states import EventKind

        words = [(EventKind.TEXT, {"text": "Good day."})]
        usages = [Usage(f"m{execution.pk}", "claude-haiku-4-5", input_uncached=900, output=40)]
        ending = self.actions.Ending("succeeded", "ok", answer="Good day.")
        end = {"execution": execution, "ending": ending, "first_sequence": 2, "by": self.scenes.WORKER}
        record, meter, finish = self.actions.record_events, self.actions.meter, self.actions.finish
        stages("first words", lambda: record(execution=execution, first_sequence=1, lines=words))
        stages("meter", lambda: meter(execution=execution, usages=usages, billing=Billing.API))
        stages("finish", lambda: finish(**end))
        claimed = stages("claim of the delivery", lambda: actions.claim_deliveries(["telegram:ada"]))
        told = {"delivery_id": claimed[0].pk, "receipts": ["1"], "by": self.scenes.GATEWAY}
        stages("receipt", lambda: actions.delivered(**told))
