"""A turn whose provider cannot answer now: another one of the chain takes it, or it waits until a login may be used again.

It waits in the queue of its lane with a moment before which it is not begun. Nothing is reserved meanwhile: when it begins, it comes
through admission like any other. Only an end without side effects is followed by another try, and only a few times.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, replace

from django.conf import settings

from conversations import events
from conversations.actions.outbox import notify
from conversations.actions.sessions import note_use
from conversations.models import Told, Turn
from conversations.states import TURN, TurnState
from conversations.wording import meanwhile, waits
from execution import actions as execution_actions
from execution import outcomes
from execution import queries as execution_queries
from execution.models import Execution
from execution.queries import Choice, NobodyAnswers, Shut
from execution.states import BreakerState, ExecutionState
from fleet.kernel import clock, journal, live, queue
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from fleet.kernel.transitions import move

WAKE_AT_ONCE = 100  # the sweep finds the others
_BY = Actor.system("admission")


class Parked(Exception):
    """Carries out of the savepoint that nobody answers now."""

    def __init__(self, nobody: NobodyAnswers) -> None:
        super().__init__(str(nobody.until))
        self.nobody = nobody


def choose(turn: Turn, shut: Collection[Shut]) -> Choice:
    """Return who answers this turn, with the try of a shut login taken where that is it. Raises Parked, or Refused for a wait too long."""
    tried = _tried(turn)
    choice = execution_queries.choose(turn.identity, shut, last=tried)
    if isinstance(choice, Choice) and choice.tries and not execution_actions.probe(breaker_id=choice.tries.id, by=_BY):
        taken = choice.tries.id
        shut = [replace(one, state=BreakerState.HALF_OPEN) if one.id == taken else one for one in shut]
        choice = execution_queries.choose(turn.identity, shut, last=tried)
    if isinstance(choice, Choice):
        return choice
    if choice.until > _latest():
        raise Refused(
            waits(choice.shut, None, turn.person),
            why="That is longer than a message may wait.",
            next_step=f"Send it again after {choice.until:%d %B %H:%M} UTC.",
            code="no_provider",
        )
    raise Parked(choice)


def _latest() -> dt.datetime:
    """Return the latest moment that may be promised to a message."""
    return clock.now() + dt.timedelta(hours=settings.FLEET_LONGEST_WAIT_HOURS)


def tell_who_answers(turn: Turn, choice: Choice) -> bool:
    """Say once for each promise that another provider than the first answers, and why; return whether that is so."""
    passed = choice.passed or _met_instead(turn, choice)
    if passed:
        _say_once(turn, "answers:" + _promises(passed), meanwhile(passed, choice.provider, turn.person))
    return bool(passed)


def _met_instead(turn: Turn, choice: Choice) -> tuple[Shut, ...]:
    """Return the logins that this turn has failed with although they are not shut; none when it comes again to one of them."""
    tried = _tried(turn)
    if choice.provider in tried:
        return ()
    return tuple(_met(turn, provider, cause, clock.now()) for provider, cause in tried.items())


def _met(turn: Turn, provider: str, cause: str, until: dt.datetime) -> Shut:
    """Return what a turn has met with a login that is not shut, as if it were shut for this turn."""
    return Shut(0, provider, "", BreakerState.CLOSED, cause, until, turn.pk)


def _tried(turn: Turn) -> dict[str, str]:
    """Return the providers that this turn has failed with, each with the cause; asks nothing for its first try."""
    return execution_queries.failed_before("turn", str(turn.pk)) if turn.tries else {}


def park(turn: Turn, nobody: NobodyAnswers) -> None:
    """Let a queued turn wait until a login may be used, and say when that is, once for each promise."""
    turn.parked_until = nobody.until
    Turn.objects.filter(pk=turn.pk, state=TurnState.QUEUED).update(parked_until=nobody.until)
    key = f"waits:{turn.pk}:{_promises(nobody.shut)}"
    if _say_once(turn, key, waits(nobody.shut, nobody.until, turn.person)):
        # Whoever looks again while another one tries the login changes nothing that was promised.
        journal.record(events.TURN_PARKED, by=_BY, subject=("turn", turn.pk), until=nobody.until.isoformat())


def _promises(shut: Collection[Shut]) -> str:
    return "+".join(f"{one.provider}:{one.login}:{one.opening}" for one in shut)


def _say_once(turn: Turn, key: str, text: str) -> bool:
    """Say something that lasts unless it was said here; return whether it was said now."""
    _, first = Told.objects.get_or_create(conversation_id=turn.conversation_id, key=key[:200])
    if first:
        notify(turn, text, by=_BY)
    return first


@dataclass(frozen=True, slots=True)
class _Next:
    """How a turn goes on: at once (`at` is empty) or later; `shut` are the logins that this waits for."""

    at: dt.datetime | None
    shut: tuple[Shut, ...]


def hand_on(turn: Turn, execution: Execution, *, by: Actor) -> bool:
    """Put a turn back into its queue when its execution ended without effect and may be followed by another; False when it may not.

    Of one that somebody has asked to stop nothing follows, though it failed before its worker heard of that.
    """
    if execution.state != ExecutionState.FAILED or execution.stop_requested_at:
        return False
    if execution_queries.had_effect(execution):
        return False
    follows = _what_follows(turn, execution)
    if follows is None:
        return False
    move(
        turn,
        TURN,
        TurnState.QUEUED,
        by=by,
        event=events.TURN_SET_BACK,
        details={"execution": execution.pk, "cause": execution.cause},
        execution=None,
        tries=turn.tries + 1,
        parked_until=follows.at,
    )
    if turn.session:
        note_use(turn.session, failed=None, began=execution.released_at is not None)
    if follows.at:
        key = f"waits:{turn.pk}:{_promises(follows.shut)}"
        _say_once(turn, key, waits(follows.shut, follows.at, turn.person))
    else:
        queue.enqueue("conversations.advance", conversation_id=turn.conversation_id)
    live.hint(f"conversation:{turn.conversation_id}", turn=turn.pk, state=turn.state)
    return True


def _what_follows(turn: Turn, execution: Execution) -> _Next | None:
    """Return how the turn goes on by the policy of the cause, or None when it ends here."""
    policy = outcomes.policy_of(execution.cause)
    if policy.begins_anew:
        return _Next(None, ()) if turn.tries < policy.retries else None
    if not execution.login:
        return None
    tried = {*execution_queries.failed_before("turn", str(turn.pk)), execution.provider}
    choice = execution_queries.choose(turn.identity, execution_queries.shut_logins(), last=tried)
    if isinstance(choice, Choice) and choice.provider not in tried:
        return _Next(None, ()) if policy.fails_over else None
    if turn.tries >= policy.retries:
        return None
    if isinstance(choice, NobodyAnswers):
        return _Next(choice.until, choice.shut) if choice.until <= _latest() else None
    at = clock.now() + policy.pause * 2**turn.tries
    return _Next(at, (_met(turn, execution.provider, execution.cause, at),))


def wake(provider: str = "", *, by: Actor) -> None:
    """Let every turn that waits be looked at now, of one provider those of bots that may use it; who must wait on is told nothing new."""
    waiting = Turn.objects.filter(state=TurnState.QUEUED, parked_until__isnull=False)
    if provider:
        waiting = waiting.filter(identity__provider_chain__contains=[provider])
    conversations = list(waiting.order_by("pk").values_list("conversation_id", flat=True)[:WAKE_AT_ONCE])
    woken = waiting.update(parked_until=None)
    if woken:
        journal.record(events.TURNS_WOKEN, by=by, subject=("provider", provider), number=woken)
    for conversation in conversations:
        queue.enqueue("conversations.advance", conversation_id=conversation)
