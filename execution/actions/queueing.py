"""An execution is queued, messages join it while its spend gate is closed, and somebody may want it stopped."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Func, JSONField, Value

from execution import events
from execution.actions.closing import Ending, close
from execution.actions.dispatching import WORKERS, home_of, nudge, queue_of
from execution.models import Execution
from execution.policies import check_may_branch
from execution.providers import registry
from execution.states import EXECUTION, ExecutionState, OutcomeClass, SpendStage
from fleet.kernel import clock, journal, live
from fleet.kernel import queue as hints
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import NotFound, StateConflict
from identities.models import Identity


@transaction.atomic(savepoint=False)
def queue(
    *,
    origin_kind: str,
    origin_id: str,
    identity: Identity,
    provider: str,
    model: str,
    texts: list[dict[str, str]],
    session_id: str,
    session_turns: int,
    reservation_id: int | None,
    kill_epoch: int,
    versions: Mapping[str, Any],
    by: Actor,
    conversation_id: int | None = None,
    login: str = "",
    is_probe: bool = False,
    fork_of: str = "",
) -> Execution:
    """Queue an admitted provider turn and nudge a worker after commit.

    `texts` are [{uuid, text}] in the order they were said; `session_id` is a UUID the caller chose; `conversation_id` is where it
    was asked, so that a kill order for that place reaches it. `login` is the one a breaker guards, and `is_probe` says that this turn
    tries it (after `probe`). A session without turns that is a `fork_of` another one begins with what was said there, which stays as it
    is; where the provider has lost that, or cannot fork (`Capabilities.forks_sessions`), the turn begins afresh and says so.

    Raises StateConflict when this origin has an execution that has not ended, NotFound when this bot had no session `fork_of`; the
    caller's transaction, or its savepoint, is undone with it.
    """
    if fork_of:
        check_may_branch(identity, fork_of)
    execution = Execution(
        origin_kind=origin_kind,
        origin_id=origin_id,
        conversation_id=conversation_id,
        identity=identity,
        provider=provider,
        model=model,
        login=login,
        is_probe=is_probe,
        prompt=texts,
        session_id=session_id,
        session_turns=session_turns,
        fork_of=fork_of,
        reservation_id=reservation_id,
        spend_stage=SpendStage.NONE if reservation_id is None else SpendStage.RESERVED,
        kill_epoch=kill_epoch,
        versions=dict(versions),
        preferred_worker_id=home_of(session_id),  # type: ignore[misc]  # the stubs know values only
    )
    _insert(execution)
    _tell(execution, by)
    return execution


def _insert(execution: Execution) -> None:
    """Write the row; the database knows whether its origin has another one that has not ended, and picks its worker."""
    try:
        execution.save(force_insert=True)
    except IntegrityError as error:
        origin = f"{execution.origin_kind} {execution.origin_id}"
        raise StateConflict(f"The {origin} is being worked on already.") from error


def _tell(execution: Execution, by: Actor) -> None:
    """Note in the journal that it waits, and let a worker know after commit."""
    journal.record(
        events.QUEUED,
        by=by,
        subject=("execution", execution.pk),
        provider=execution.provider,
        model=execution.model,
        origin_kind=execution.origin_kind,
        origin_id=execution.origin_id,
    )
    nudge(execution.pk, execution.epoch, worker_id=execution.preferred_worker_id)


def expect(
    *,
    identity_id: int,
    conversation_id: int,
    provider: str,
    model: str,
    session_id: str,
    session_turns: int,
    worker_id: uuid.UUID | None = None,
) -> None:
    """Tell a worker that this turn will probably be queued, so that its process can start while it is being admitted.

    `worker_id`: the one that will hear of the turn first (`dispatching.HOME`), if that matters.

    Only a hint, with no row behind it: when it is lost, or the turn is refused, nothing but a little time is.
    """
    if registry.get(provider).capabilities.spawns_process:
        hints.enqueue(
            "execution.expect",
            queue=queue_of(worker_id),
            identity_id=identity_id,
            conversation_id=conversation_id,
            provider=provider,
            model=model,
            session_id=session_id,
            session_turns=session_turns,
        )


@transaction.atomic
def join(*, execution_id: int, text: Mapping[str, str], by: Actor | None = None) -> bool:
    """Add one message {uuid, text} to the prompt; False when the spend gate is open already, so that it has to wait."""
    longer = Func(F("prompt"), Value([dict(text)], JSONField()), template="%(expressions)s", arg_joiner=" || ")
    joined = Execution.objects.filter(
        pk=execution_id,
        state__in=(ExecutionState.QUEUED, ExecutionState.STARTING),
        spend_stage__in=(SpendStage.NONE, SpendStage.RESERVED),
        stop_requested_at=None,
    ).update(prompt=longer)
    if joined:
        journal.record(
            events.JOINED, by=by or Actor.system("intake"), subject=("execution", execution_id), uuid=text["uuid"]
        )
    return bool(joined)


@transaction.atomic
def request_stop(*, execution_id: int, reason: str, by: Actor) -> ExecutionState:
    """Stop an execution: one that waits ends at once, one that runs is stopped by its worker. Returns the state seen.

    Asking twice is harmless. Raises StateConflict when it has ended already.
    """
    found = Execution.objects.filter(pk=execution_id)
    row = found.select_for_update(no_key=True).first()  # as it is until we are done: a worker may be giving it back
    if row is None:
        raise NotFound(f"There is no execution {execution_id}.")
    if row.state in EXECUTION.final:
        raise StateConflict(f"This execution has ended already: it {row.state}.")
    if row.state == ExecutionState.QUEUED:
        close(found, ending=_stopped_before_start(reason), by=by)
        return ExecutionState.STOPPED
    if row.stop_requested_at is None:
        found.update(stop_requested_at=clock.db_now(), stop_reason=reason[:200])
        journal.record(events.STOP_REQUESTED, by=by, subject=("execution", row.pk), reason=reason[:200])
        live.hint(WORKERS, execution=row.pk)
    return ExecutionState(row.state)


def _stopped_before_start(reason: str) -> Ending:
    sentence = f"Stopped before it began: {reason}" if reason else "Stopped before it began."
    return Ending(ExecutionState.STOPPED, OutcomeClass.STOPPED, sentence)
