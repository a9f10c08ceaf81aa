"""What is said while the bot works, in a conversation that steers: it waits as a turn of its own, and is offered to the running one.

The waiting turn is the safe side. Only when the provider confirmed that the running turn has the message does it move there, and the
waiting turn ends as joined; whatever else happens, the waiting turn is simply the next one. Nothing is reserved for it meanwhile.
"""

from __future__ import annotations

from conversations import events
from conversations.actions.outbox import deliver, notify
from conversations.models import InboundMessage, Message, Turn
from conversations.states import TURN, Author, DeliveryKind, TurnState
from execution import actions as execution_actions
from execution import queries as execution_queries
from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused, StateConflict
from fleet.kernel.transitions import move
from governance import policies as governance_policies
from identities.models import Person

_TAKEN = "I take this into what I am working on."
_DOUBT = (
    "The turn before ended while this message was handed to it, and nobody can tell whether it was seen there. It is answered now; "
    "something may be answered twice."
)


def offer_to_running(row: InboundMessage, person: Person, active: Turn | None, queued: list[Turn]) -> bool:
    """Offer a waiting message to the turn that runs; False when it can only wait.

    Whose turn it is may steer it, as with a message that joins before the spend gate. Nothing overtakes what was said earlier.
    """
    if active is None or active.execution_id is None or active.person_id != person.pk:
        return False
    if _somebody_comes_first(active.execution_id, queued) or _is_held_back(active):
        return False
    text = {"uuid": str(row.uuid), "text": row.text}
    return execution_actions.offer(execution_id=active.execution_id, text=text, by=Actor.person(person))


def _somebody_comes_first(execution_id: int, queued: list[Turn]) -> bool:
    """Return whether a message waits here that is not on its way into the running turn itself."""
    if not queued:
        return False
    on_their_way = execution_queries.undecided_offers(execution_id)
    return InboundMessage.objects.filter(turn__in=queued).exclude(uuid__in=on_their_way).exists()


def _is_held_back(active: Turn) -> bool:
    """Return whether a kill order lets this bot begin nothing new: then a message waits, and is refused like any other."""
    try:
        governance_policies.check_not_killed(identity_slug=active.identity.slug, conversation_id=active.conversation_id)
    except Refused:
        return True
    return False


def withdraw_offers(turns: list[Turn], *, by: Actor) -> None:
    """Take back what these waiting turns offered. Before their rows are changed: a worker that decides an offer comes that way too."""
    uuids = InboundMessage.objects.filter(turn__in=turns).values_list("uuid", flat=True)
    execution_actions.withdraw(uuids=list(uuids), by=by)


def join_running(uuid: str, running: Turn, *, by: Actor) -> None:
    """The running turn has this message: move it there, and close the turn that waited for it. In the offer's own transaction."""
    row = InboundMessage.objects.select_related("turn__identity").get(uuid=uuid)
    waiting = row.turn
    if waiting is None or waiting.pk == running.pk:
        return
    said = Message.objects.filter(turn=waiting, author=Author.PERSON, text=row.text).order_by("pk").values("pk")[:1]
    Message.objects.filter(pk__in=said).update(turn=running)
    InboundMessage.objects.filter(pk=row.pk).update(turn=running)
    subject = ("turn", running.pk)
    journal.record(events.TURN_STEERED, by=by, subject=subject, inbound=row.pk, waiting=waiting.pk)
    if not waiting.inbound.exists():
        _end_as_joined(waiting, running, by=by)
    _acknowledge(waiting, running, by=by)


def _end_as_joined(waiting: Turn, running: Turn, *, by: Actor) -> None:
    try:
        move(
            waiting,
            TURN,
            TurnState.JOINED,
            by=by,
            event=events.TURN_CLOSED,
            details={"taken_by": running.pk},
            sentence=f"Turn {running.pk}, which was running, took this message and answers it.",
            taken_by=running,
            ended_at=clock.db_now(),
        )
    except StateConflict:
        pass  # it was stopped while its message was handed over; the running turn has the message all the same
    live.hint(f"conversation:{waiting.conversation_id}", turn=waiting.pk, state=waiting.state)


def _acknowledge(waiting: Turn, running: Turn, *, by: Actor) -> None:
    Message.objects.create(conversation_id=running.conversation_id, turn=running, author=Author.SYSTEM, text=_TAKEN)
    deliver(**waiting.route, kind=DeliveryKind.PROGRESS, text=_TAKEN, turn=running, by=by)


def goes_on_waiting(uuid: str, *, ended: bool, doubtful: bool, by: Actor) -> None:
    """The running turn did not take this message: its own turn is the next one. Says so, unless that begins right now."""
    waiting = Turn.objects.filter(inbound__uuid=uuid, state=TurnState.QUEUED).first()
    if waiting is None:
        return
    if doubtful:
        notify(waiting, _DOUBT, by=by)
    elif not ended:
        before = Turn.objects.filter(conversation=waiting.conversation_id, state=TurnState.QUEUED, pk__lt=waiting.pk)
        tell_it_waits(waiting, position=before.count() + 1, by=by)


def tell_it_waits(turn: Turn, *, position: int, by: Actor) -> None:
    """Tell the person that an earlier message comes first, and at which position of the queue theirs is."""
    text = f"An earlier message here comes first. Yours is number {position} in the queue; /stop clears it."
    deliver(**turn.route, kind=DeliveryKind.PROGRESS, text=text, turn=turn, by=by)
