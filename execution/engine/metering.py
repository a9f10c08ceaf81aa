"""What one attempt uses: posted to the ledger as its provider tells it, with what it has cost so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budgets.ports import Metered
from execution import actions
from execution.engine.halts import Limits
from execution.models import Execution
from execution.ports import ExecutionProvider, Finished, Usage
from execution.states import UNKNOWN, OutcomeClass


class Meter:
    """The meter of one attempt. `_cost` are the columns of the execution's row that its last reading fills."""

    def __init__(self, execution: Execution, provider: ExecutionProvider) -> None:
        self._execution, self._provider = execution, provider
        self._cost: dict[str, Any] = {}

    def post(self, usages: Sequence[Usage]) -> Metered | None:
        """Post what was used; None when there is no reservation to post it to. May be repeated: a message counts once."""
        metered = actions.meter(execution=self._execution, usages=usages, billing=self._provider.billing())
        if metered is not None:
            self._cost = {"cost_nano_usd": metered.total_nano_usd, "cost_basis": metered.basis}
        return metered

    def is_unread(self, outcome: OutcomeClass, limits: Limits) -> bool:
        """Return whether a released turn did something that its provider never counted: unknown is never zero."""
        did_something = outcome == OutcomeClass.OK or limits.written or limits.called
        return not self._cost and self._provider.capabilities.counts_late and bool(did_something)

    def is_cut_off(self, finished: Finished, limits: Limits, *, halted: bool) -> bool:
        """Return whether a released turn was ended in the middle of a message that its provider would have counted when it was whole.

        An end that the provider told itself is one that it counted to. Before any other the model may have been asked again, also
        while a tool runs: Codex asks on beside a command that takes long.
        """
        if finished.outcome == OutcomeClass.OK or not self._provider.capabilities.counts_whole:
            return False
        told = finished.cause is not None and not halted
        return bool(self._cost) and (limits.is_in_a_message or not told)

    def cost(self, doubt: str) -> dict[str, Any]:
        """Return the columns that tell the cost. `doubt` is the basis of one that is not known, or not to its end."""
        known = {} if doubt == UNKNOWN else self._cost
        return {**known, "cost_basis": doubt} if doubt else dict(known)
