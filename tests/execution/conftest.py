"""The table is set: prices, budgets, policy; and a worker that runs in the test's own thread."""

from collections.abc import Callable
from pathlib import Path

import pytest

from execution.engine import Supervisor
from execution.models import Execution
from tests.factories import execution as made


@pytest.fixture(autouse=True)
def table(db: None, settings, tmp_path: Path) -> None:
    """Every execution needs a budget and a policy, and directories of its own."""
    settings.FLEET_WORKSPACES = tmp_path / "workspaces"
    settings.FLEET_HOMES = tmp_path / "homes"
    made.set_the_table()


@pytest.fixture
def run() -> Callable[[Execution], Execution]:
    """Run an execution to its end, here and now, and return its row."""
    supervisor = Supervisor(slots=4)
    supervisor._register()

    def work(execution: Execution) -> Execution:
        supervisor.work(execution.pk, execution.epoch)
        return Execution.objects.get(pk=execution.pk)

    return work
