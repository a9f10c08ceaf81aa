"""The ends of an attempt that its provider does not tell: sentences, and which state follows from an outcome."""

from __future__ import annotations

import datetime as dt
import errno
import time

import structlog
from django.db import DatabaseError, InterfaceError

from execution.engine.halts import Halt
from execution.ports import Finished, NotPrepared
from execution.states import ExecutionState, OutcomeClass
from fleet.kernel.exceptions import Refused

log = structlog.get_logger(__name__)

BUDGET_USED_UP = Halt(
    OutcomeClass.BUDGET,
    "The budget for this is used up, so it was stopped here. The budget page shows which one and when it starts anew.",
)
TAKEN_OVER = Halt(OutcomeClass.LOST, "Another worker owns this now.", at_once=True)
FAULT = "Something broke inside Fleet while this was running. The worker's log has the details; please try again."
SILENT_END = "The provider ended without saying how. Please try again."
AWAY_AT_THE_GATE = "its worker could not reach the database"
AWAY = "The database could not be reached for too long, so the worker stopped this by itself. Please try again."
GONE_AT_THE_GATE = Finished(
    OutcomeClass.ERROR,
    sentence="Its program ended before it was asked anything, so nothing was spent. Please try again; the worker's log has more.",
)


class Left(Exception):
    """The turn goes on without this worker."""


def following(failure: Exception, *, execution_id: int) -> Finished:
    """Return the end that follows from what went wrong, and note in the log what nobody expected."""
    match failure:
        case NotPrepared():
            return failure.finished
        case Refused():
            outcome = OutcomeClass.GOVERNANCE if failure.code == "killed" else OutcomeClass.STOPPED
            return Finished(outcome, sentence=failure.sentence)
        case DatabaseError() | InterfaceError():
            event, sentence = "execution.database_away", AWAY
        case OSError():
            event, sentence = "execution.machine_refuses", refusal_of_the_machine(failure)
        case _:
            event, sentence = "execution.fault", FAULT
    log.error(event, execution=execution_id, exc_info=failure)
    return Finished(OutcomeClass.ERROR, sentence=sentence)


def reason_to_give_back(halt: Halt | None, finished: Finished, *, struck: str) -> str:
    """Return why a turn whose spend gate never opened is queued again; empty when it has to end.

    `struck` tells of a stranger's signal that ended its process. What somebody ended on purpose does not begin anew.
    """
    if halt is not None:
        return halt.give_back
    return struck or (AWAY_AT_THE_GATE if finished.sentence == AWAY else "")


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
