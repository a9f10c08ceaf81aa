"""A subagent works while its bot's turn waits: what it uses counts against the budget at once, and however the turn ends."""

from __future__ import annotations

import pytest

from budgets import actions as budget_actions
from budgets.models import TokenLedger
from budgets.states import Metric, Mode, Scope, Unit
from execution import actions
from execution.engine import Supervisor
from execution.models import Execution
from execution.providers import registry
from execution.states import AT_LEAST, ExecutionState, OutcomeClass
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from identities.models import Identity
from tests.emulators.model import ModelEmulator, Usage
from tests.execution.running import Run, ended, eventually, until, worker
from tests.factories import execution as made
from tests.factories.execution import BY

__all__ = ["worker"]
pytestmark = [pytest.mark.realcli, pytest.mark.timeout(300), pytest.mark.django_db(transaction=True)]
OWN, OF_SUBAGENT = 7, 50_000  # tokens of output


@pytest.fixture
def bot(request, settings, model_emulator: ModelEmulator) -> Identity:
    """Its model asks a subagent, which has said a lot and waits for a command that takes for ever."""
    tool = getattr(request, "param", "Agent")
    settings.ANTHROPIC_BASE_URL, settings.ANTHROPIC_API_KEY = model_emulator.url, "sk-ant-canary-not-a-key"
    registry.get("claude").warm_up()
    command = {"command": "touch begun; sleep 1000"}
    model_emulator.call_tool("inner job", "Bash", command, then="In.", usage=Usage(input=50, output=OF_SUBAGENT))
    inner = {"description": "d", "prompt": "inner job", "subagent_type": "general-purpose"}
    model_emulator.call_tool("delegate", tool, inner, then="Done.", usage=Usage(input=12, output=OWN))
    return made.BotFactory(tools=["Bash", tool], provider_chain=["claude"])


def posted(row: Execution) -> int:
    """The ledger's tokens of output."""
    rows = TokenLedger.objects.filter(execution_id=row.pk, unit=Unit.OUTPUT)
    return sum(rows.values_list("quantity", flat=True))


@pytest.mark.parametrize("bot", ["Agent", "Task"], indirect=True)  # the tool's name, and its earlier one
def test_it_is_stopped_where_the_budget_ends(run: Run, bot: Identity) -> None:
    budget_actions.create_budget(
        name="Tokens of one bot", scope_kind=Scope.IDENTITY, scope_id=bot.slug,
        metric=Metric.TOKENS, limit_amount=40_000, mode=Mode.HARD, by=BY,
    )  # fmt: skip
    row = run(made.queued("delegate", identity=bot, provider="claude"))
    assert (row.state, row.outcome) == (ExecutionState.FAILED, OutcomeClass.BUDGET), row.sentence
    assert posted(row) == row.output == OWN + OF_SUBAGENT


@pytest.mark.parametrize("by_order", [False, True])
def test_who_stops_it_pays_what_it_had_used(
    worker: Supervisor, bot: Identity, settings, monkeypatch: pytest.MonkeyPatch, by_order: bool
) -> None:
    monkeypatch.setattr("execution.engine.transcript.METER_SECONDS", 1000.0)  # nobody has looked by then
    queued = made.queued("delegate", identity=bot, provider="claude")
    assert worker.offer(queued.pk, 0)
    eventually((settings.FLEET_WORKSPACES / bot.slug / "begun").exists, "its command runs")
    if by_order:
        governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="Fire drill.", by=BY)
    else:
        actions.request_stop(execution_id=queued.pk, reason="Enough.", by=BY)
    row = until(ended, queued)
    assert (row.state, row.cost_basis) == (ExecutionState.STOPPED, AT_LEAST), row.sentence
    assert posted(row) == row.output == OWN + OF_SUBAGENT
