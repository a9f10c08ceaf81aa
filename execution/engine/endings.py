"""The ends of an attempt that its provider does not tell: sentences, and which state follows from an outcome."""

from __future__ import annotations

import datetime as dt
import errno
import time

from execution.engine.halts import Halt, Limits
from execution.ports import Capabilities
from execution.states import ExecutionState, OutcomeClass

BUDGET_USED_UP = Halt(
    OutcomeClass.BUDGET,
    "The budget for this is used up, so it was stopped here. The budget page shows which one and when it starts anew.",
)
TAKEN_OVER = Halt(OutcomeClass.LOST, "Another worker owns this now.", at_once=True)
FAULT = "Something broke inside Fleet while this was running. The worker's log has the details; please try again."
SILENT_END = "The provider ended without saying how. Please try again."
AWAY = "The database could not be reached for too long, so the worker stopped this by itself. Please try again."


class Left(Exception):
    """The turn goes on without this worker."""


def refusal_of_the_machine(error: OSError) -> str:
    """Return what a person is told when the operating system refuses something."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full where this bot works, so it could not go on. Make room on the worker's machine, then ask again."
    return (
        f"The worker's machine refused something it needs: {error.strerror or error}. The worker's log has the details."
    )


def state_of(outcome: OutcomeClass, *, gone: bool) -> ExecutionState:
    """Return the state in which an attempt ends; `gone` says that its processes were seen to be gone."""
    if outcome == OutcomeClass.LOST:
        return ExecutionState.LOST
    if outcome == OutcomeClass.OK:
        return ExecutionState.SUCCEEDED
    if outcome in (OutcomeClass.STOPPED, OutcomeClass.GOVERNANCE) and gone:
        return ExecutionState.STOPPED
    return ExecutionState.FAILED


def ago(moment: float) -> dt.timedelta:
    """Return how long ago a moment of time.monotonic() was."""
    return dt.timedelta(seconds=time.monotonic() - moment)


def is_unmetered(outcome: OutcomeClass, limits: Limits, capabilities: Capabilities) -> bool:
    """Return whether something was done that a provider may never count. Of use when nothing was counted: unknown is never zero."""
    return capabilities.counts_late and bool(outcome == OutcomeClass.OK or limits.written or limits.called)
