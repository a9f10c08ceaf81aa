"""The breaker of a login: what executions meet opens it, one of them tries it again, and a person may close it.

PostgreSQL holds it, one row per provider and login. An ordinary execution never touches it: only an end that its policy counts, and
the end of the one that tried a login.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F

from execution import events
from execution.models import Breaker, Execution
from execution.outcomes import Policy, policy_of
from execution.states import BREAKER, BreakerState, ExecutionState
from fleet.kernel import clock, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import NotFound, StateConflict
from fleet.kernel.transitions import move


def learn(row: Execution, *, by: Actor) -> None:
    """Let the breaker of the execution's login know how it ended, in the caller's transaction."""
    policy = policy_of(row.cause)
    if not row.login or not (row.is_probe or policy.opens_after):
        return
    breaker = _breaker_of(row)
    if row.is_probe and breaker.state == BreakerState.HALF_OPEN:
        _judge_probe(breaker, row, policy, by)
    elif policy.opens_after and breaker.state == BreakerState.CLOSED:
        _count(breaker, row, policy, by)
    elif policy.opens_after and breaker.state == BreakerState.OPEN:
        _wait_longer(breaker, row)


def _breaker_of(row: Execution) -> Breaker:
    """Return the login's breaker, locked: ends of one login are counted one after the other."""
    Breaker.objects.bulk_create([Breaker(provider=row.provider, login=row.login)], ignore_conflicts=True)
    return Breaker.objects.select_for_update().get(provider=row.provider, login=row.login)


def _judge_probe(breaker: Breaker, row: Execution, policy: Policy, by: Actor) -> None:
    if row.state == ExecutionState.SUCCEEDED:
        _close(breaker, by=by, why="it answered again")
    elif policy.opens_after:
        _open(breaker, row, policy, failures=breaker.failures + 1, by=by)
    else:  # it ended for another reason, which says nothing about the login: the next one tries
        move(
            breaker,
            BREAKER,
            BreakerState.OPEN,
            by=by,
            event=events.BREAKER_OPENED,
            details={"why": "the try said nothing"},
            until=clock.now(),
        )


def _count(breaker: Breaker, row: Execution, policy: Policy, by: Actor) -> None:
    failures = 1 if _answered_since(breaker) else breaker.failures + 1
    if failures >= policy.opens_after:
        _open(breaker, row, policy, failures=failures, by=by)
    else:
        Breaker.objects.filter(pk=breaker.pk).update(
            failures=failures, failed_execution_id=row.pk, cause=row.cause, changed_at=clock.db_now()
        )


def _answered_since(breaker: Breaker) -> bool:
    """Has the login answered anything that was asked after its last failure? Then that one does not count any more."""
    later = Execution.objects.filter(pk__gt=breaker.failed_execution_id or 0, state=ExecutionState.SUCCEEDED)
    return later.filter(provider=breaker.provider, login=breaker.login).exists()


def _open(breaker: Breaker, row: Execution, policy: Policy, *, failures: int, by: Actor) -> None:
    now = clock.now()
    named = row.retry_at is not None and row.retry_at > now
    until = row.retry_at if named else now + policy.pause_after(failures)
    promised_anew = named or breaker.state == BreakerState.CLOSED
    first: dict[str, Any] = {"opened_at": now} if breaker.state == BreakerState.CLOSED else {}
    move(
        breaker,
        BREAKER,
        BreakerState.OPEN,
        by=by,
        event=events.BREAKER_OPENED,
        details={
            **_names(breaker),
            "cause": row.cause,
            "until": until.isoformat() if until else "",
            "execution": row.pk,
        },
        cause=row.cause,
        sentence=row.sentence,
        until=until,
        named=named,
        failures=failures,
        failed_execution_id=row.pk,
        opening=breaker.opening + promised_anew,
        changed_at=clock.db_now(),
        **first,
    )
    live.hint("fleet", breaker=breaker.provider)


def _wait_longer(breaker: Breaker, row: Execution) -> None:
    """One that was under way already when the login was shut names a later moment: that one counts."""
    if row.retry_at is not None:
        Breaker.objects.filter(pk=breaker.pk, state=BreakerState.OPEN, until__lt=row.retry_at).update(
            until=row.retry_at, named=True, opening=F("opening") + 1, changed_at=clock.db_now()
        )


def probe(*, breaker_id: int, by: Actor) -> bool:
    """Take the one try of a login whose moment has come; False when somebody else has it. Undone with the caller's transaction."""
    breaker = Breaker(pk=breaker_id, state=BreakerState.OPEN)
    try:
        move(
            breaker,
            BREAKER,
            BreakerState.HALF_OPEN,
            by=by,
            event=events.BREAKER_PROBED,
            guard={"until__lte": clock.now()},
            changed_at=clock.db_now(),
        )
    except StateConflict:
        return False
    return True


@transaction.atomic
def reset_breaker(*, breaker_id: int, by: Actor) -> None:
    """Use a login again at once, as a person decided who has put right what was wrong. Raises NotFound; harmless when it is used."""
    breaker = Breaker.objects.select_for_update().filter(pk=breaker_id).first()
    if breaker is None:
        raise NotFound("There is no such login.", next_step="Choose one from the list.")
    if breaker.state != BreakerState.CLOSED:
        _close(breaker, by=by, why="a person wants it tried again")


def _close(breaker: Breaker, *, by: Actor, why: str) -> None:
    open_since: dict[str, Any] = {"until": None, "opened_at": None, "named": False, "failures": 0}
    move(
        breaker,
        BREAKER,
        BreakerState.CLOSED,
        by=by,
        event=events.BREAKER_CLOSED,
        details={**_names(breaker), "why": why},
        changed_at=clock.db_now(),
        **open_since,
    )
    live.hint("fleet", breaker=breaker.provider)


def _names(breaker: Breaker) -> dict[str, str]:
    return {"provider": breaker.provider, "login": breaker.login}
