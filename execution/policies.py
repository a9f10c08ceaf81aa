"""What an execution may do, and in which words a stop is told."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q

from budgets.models import Reservation
from budgets.states import ReservationState
from execution.models import Execution
from fleet.kernel.exceptions import NotFound, Refused
from governance import policies as governance_policies
from governance.models import IN_FORCE, KillOrder
from governance.states import KillScope
from identities.models import Identity

UNPAID = Q(reservation_id__isnull=False) & ~Exists(
    Reservation.objects.filter(pk=OuterRef("reservation_id"), state=ReservationState.HELD)
)
"""Executions whose reservation holds nothing for certain: it is uncertain, or has ended."""


def within(scope: str, scope_id: str) -> Q:
    """Return, as a condition on executions, what a kill order of this scope reaches."""
    fields = {
        KillScope.IDENTITY: "identity__slug",
        KillScope.CONVERSATION: "conversation_id",
        KillScope.EXECUTION: "pk",
    }
    field = fields.get(KillScope(scope))
    return Q(**{field: scope_id}) if field else Q()


def check_not_held_back(execution: Execution) -> int:
    """Return the kill epoch when no order reaches this execution, else raise Refused (code `killed`).

    An order reaches it by its scope, or because its receipt names it.
    """
    epoch = governance_policies.check_not_killed(
        identity_slug=execution.identity.slug,
        conversation_id=execution.conversation_id,
        execution_id=execution.pk,
        since_epoch=execution.kill_epoch,
    )
    naming = KillOrder.objects.filter(IN_FORCE, lines__kind="process", lines__subject=str(execution.pk))
    order = naming.order_by("epoch").first()
    if order is not None:
        raise Refused(
            "Nothing new is started here.",
            why=order.sentence,
            next_step="Send it again when the order has been lifted (console, Kill switch).",
            code="killed",
        )
    return epoch


def check_may_branch(identity: Identity, session_id: str) -> None:
    """Raise NotFound unless this session was the bot's and nobody else's: whoever branches off it knows what was said there.

    Other bots count too, since the id in a row is the one that its CLI told.
    """
    whose = Execution.objects.filter(session_id=session_id).values_list("identity_id", flat=True)
    if set(whose.distinct()) != {identity.pk}:
        raise NotFound(
            "There is no such session to branch off.",
            why=f"{identity.name} has had none with this id.",
            next_step="Begin a new one, or branch off one of this bot's own.",
        )


def sentence_of_stop(reason: str) -> str:
    """Return what is told of a turn that somebody asked to stop."""
    return f"Stopped: {reason}" if reason else "Stopped."
