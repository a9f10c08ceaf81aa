"""Sessions: which provider session a turn continues, and when a new one replaces it.

Rotation after 4 hours idle, after three failures in a row, or when the binding changed. The person is told, the parent is kept,
and the new session is seeded with a bounded summary.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid

import rfc8785

from conversations import events
from conversations.actions.outbox import notify
from conversations.models import Conversation, Session, Turn
from conversations.states import SESSION, Author, SessionState
from execution import actions as execution_actions
from execution import queries as execution_queries
from execution.queries import Shut
from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from fleet.kernel.transitions import move
from identities.ports import Compiled

IDLE_LIMIT = dt.timedelta(hours=4)
FAILURE_LIMIT = 3
SEED_MESSAGES = 12
SEED_CHARACTERS = 4000
_BY = Actor.system("sessions")


# What an admission has to know before it chooses who answers, in one statement: the open session, and the logins that are shut.
_GROUND = f"""
    SELECT session.*, shut.logins FROM (SELECT ({execution_queries.SHUT_LOGINS}) AS logins) AS shut
    LEFT JOIN conversations_session AS session ON session.conversation_id = %s AND session.state = 'open'
"""  # noqa: S608  # nothing in it comes from outside


def ground_of(turn: Turn) -> tuple[Session | None, tuple[Shut, ...]]:
    """Return the open session of the turn's conversation, if there is one, and the logins that are not used now."""
    (row,) = Session.objects.raw(_GROUND, [turn.conversation_id])
    logins: object = vars(row).pop("logins")
    return (row if row.pk else None), execution_queries.shut_logins(logins)


def session_for(
    turn: Turn, current: Session | None, *, provider: str, model: str, compiled: Compiled, explained: bool = False
) -> Session:
    """Return the session this turn runs in: the `current` one of its conversation, or a new one when that one must not go on.

    `explained`: the person hears already why another provider answers.
    """
    binding = binding_of(provider=provider, model=model, digest=compiled.digest)
    reason = rotation_reason(current, binding, provider=provider) if current else ""
    if current and not reason:
        return current
    if current:
        _rotate(current, reason)
    session = _open(turn, provider, model, binding, parent=current)
    if current and current.turns > 0 and not explained:
        _explain(turn, reason)
    return session


def binding_of(*, provider: str, model: str, digest: str) -> str:
    """Return the SHA-256 (hex) over what a session is bound to; the digest covers prompt, skills, tools and working directory."""
    return hashlib.sha256(rfc8785.dumps([provider, model, digest])).hexdigest()


def rotation_reason(session: Session, binding: str, *, provider: str) -> str:
    """Return why this session must not go on, or an empty text."""
    if session.provider != provider:
        return f"{provider.capitalize()} answers now"
    if session.binding != binding:
        return "the bot was changed"
    if session.failures >= FAILURE_LIMIT:
        return f"it failed {session.failures} times in a row"
    if clock.now() - session.last_used_at > IDLE_LIMIT:
        return "it was idle for more than 4 hours"
    return ""


def start_anew(conversation: Conversation, *, by: Actor) -> bool:
    """Let the next turn begin a session that knows nothing of this one; False when there is nothing to forget."""
    current = Session.objects.filter(conversation=conversation, state=SessionState.OPEN).first()
    if current is None:
        return False
    _rotate(current, f"{by.name} asked for a new one", by=by)
    return True


def _rotate(session: Session, reason: str, *, by: Actor = _BY) -> None:
    move(
        session,
        SESSION,
        SessionState.ROTATED,
        by=by,
        event=events.SESSION_ROTATED,
        details={"reason": reason},
        rotation_reason=reason,
    )


def _open(turn: Turn, provider: str, model: str, binding: str, *, parent: Session | None) -> Session:
    used = parent is not None and parent.turns > 0
    ahead = execution_actions.adopt_prewarmed(
        identity=turn.identity, provider=provider, model=model, conversation_id=turn.conversation_id, by=_BY
    )
    session = Session.objects.create(
        conversation_id=turn.conversation_id,
        provider=provider,
        provider_session_id=ahead or str(uuid.uuid4()),
        model=model,
        binding=binding,
        parent=parent,
        seed=summary_of(turn.conversation, before_turn=turn.pk) if used else "",
    )
    journal.record(events.SESSION_OPENED, by=_BY, subject=("session", session.pk), turn=turn.pk)
    return session


def _explain(turn: Turn, reason: str) -> None:
    notify(turn, f"I started a new session, since {reason}. I go on from a short summary of what was said.", by=_BY)


def summary_of(conversation: Conversation, *, before_turn: int) -> str:
    """Return the last things said before this turn, oldest first, bounded in number and length.

    What came after it and still waits is none of them: it will be asked by itself. Nor are commands, which no bot was told.
    """
    rows = conversation.messages.exclude(author=Author.SYSTEM).filter(turn_id__lt=before_turn).order_by("-pk")
    said: list[str] = []
    room = SEED_CHARACTERS
    for row in rows[:SEED_MESSAGES]:
        line = f"{'You' if row.author == Author.BOT else row.name or 'Person'}: {row.text.strip()}"[:800]
        if len(line) > room:
            break
        said.append(line)
        room -= len(line)
    if not said:
        return ""
    return "What was said in the earlier session of this conversation, for your information:\n" + "\n".join(
        reversed(said)
    )


def note_use(session: Session, *, failed: bool | None, began: bool) -> None:
    """Count a finished turn of the session: failures in a row (None: it says nothing about the session), and when it was last used.

    A turn that never `began` told the provider nothing, so the next one still has to bring the summary.
    """
    if failed is not None:
        session.failures = session.failures + 1 if failed else 0
    session.turns += began
    session.last_used_at = clock.now()
    session.save(update_fields=["failures", "turns", "last_used_at"])
