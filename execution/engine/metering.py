"""What one attempt uses: posted to the ledger as its provider tells it, with what it has cost so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budgets.ports import Metered
from execution import actions
from execution.engine.halts import Limits
from execution.models import Execution
from execution.ports import ExecutionProvider, Finished, Usage
from execution.states import AT_LEAST, UNKNOWN, OutcomeClass


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

    def doubt(self, finished: Finished, limits: Limits, *, halted: bool) -> str:
        """Return the basis of a released turn's cost where that is not known, or not to its end; empty where it is.

        An end that the provider told itself is one that it counted to, and a call that its API refused is not paid for. Before any other
        the model may have been asked, though nothing of it was heard: it thinks, or Codex asks on beside a command that takes long.
        """
        able = self._provider.capabilities
        is_told = limits.is_refused if halted else finished.cause is not None
        if not self._cost:
            is_unread = limits.written or limits.called or not is_told
            return UNKNOWN if able.counts_late and is_unread else ""
        is_cut_off = finished.outcome != OutcomeClass.OK and self._is_cut_off(limits, is_told=is_told)
        return AT_LEAST if is_cut_off else ""

    def _is_cut_off(self, limits: Limits, *, is_told: bool) -> bool:
        """Return whether something is missing of what was counted; where a message's beginning is, that is one that was asked for only."""
        able = self._provider.capabilities
        if able.counts_whole:
            return limits.is_in_a_message or not is_told
        return able.counts_late and limits.is_unheard and not is_told

    def cost(self, doubt: str) -> dict[str, Any]:
        """Return the columns that tell the cost. `doubt` is the basis of one that is not known, or not to its end."""
        known = {} if doubt == UNKNOWN else self._cost
        return {**known, "cost_basis": doubt} if doubt else dict(known)
