"""A message is offered to a turn that runs already: it becomes part of it once its provider says so, and goes back otherwise.

Everybody who writes here holds the execution's row first: an end of the turn, a hand-over and a withdrawal never pass each other. When
the turn ends, whoever ends it decides what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F

from execution import events
from execution.actions.dispatching import WORKERS
from execution.models import Execution, Offer
from execution.providers import registry
from execution.providers.steering import Remembering
from execution.states import OFFER, ExecutionState, OfferState, SpendStage
from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Fenced
from fleet.kernel.transitions import move

log = structlog.get_logger(__name__)
_RUNS = (ExecutionState.RUNNING, ExecutionState.WAITING_APPROVAL)


@transaction.atomic
def offer(*, execution_id: int, text: Mapping[str, str], by: Actor) -> bool:
    """Offer one message {uuid, text} to a running turn and tell its worker; False when the turn or its provider cannot take any.

    What becomes of it is told by OFFER_TAKEN or OFFER_RETURNED, at the latest when the turn ends.
    """
    rows = Execution.objects.filter(
        pk=execution_id,
        state__in=_RUNS,
        spend_stage=SpendStage.RELEASED,
        stop_requested_at=None,
        provider__in=[name for name in settings.FLEET_PROVIDERS if registry.get(name).capabilities.steers],
    )
    for row in rows.update_returning(offered=F("offered") + 1):
        made = Offer.objects.create(execution=row, uuid=text["uuid"], text=text["text"])
        journal.record(events.OFFER_MADE, by=by, subject=("offer", made.pk), **_facts(made, row))
        live.hint(WORKERS, execution=row.pk)
        return True
    return False


@transaction.atomic
def withdraw(*, uuids: Collection[UUID], by: Actor) -> None:
    """Take back what was offered and not handed over yet. Nobody is told but the journal: whoever withdraws knows."""
    waiting = Offer.objects.filter(uuid__in=uuids, state=OfferState.OFFERED)
    holders = Execution.objects.filter(pk__in=waiting.values("execution")).order_by("pk")
    for execution in holders.select_for_update(no_key=True):
        for row in waiting.filter(execution=execution).order_by("pk").select_for_update():
            _decide(row, execution, OfferState.RETURNED, event=events.OFFER_WITHDRAWN, by=by)


@transaction.atomic
def hand(*, execution: Execution, by: Actor) -> Offer | None:
    """Mark the oldest message offered to the turn as being handed over, and return it; None when nothing is to be handed now.

    From here on only the provider knows. Nothing is handed while an earlier one is not decided, or once the turn is to stop.
    """
    owned = Execution.objects.owned(execution).filter(stop_requested_at=None)
    if not owned.select_for_update(no_key=True).values("pk").first():
        return None
    row = next(iter(_undecided(execution)), None)
    if row is None or row.state == OfferState.HANDED:
        return None
    facts = _facts(row, execution)
    return move(
        row, OFFER, OfferState.HANDED, by=by, event=events.OFFER_HANDED, details=facts, handed_at=clock.db_now()
    )


@transaction.atomic
def take_offer(*, execution: Execution, offer: Offer, by: Actor) -> None:
    """The provider confirmed that the running turn has this message. Raises Fenced when the turn is no longer this worker's."""
    _hold(execution)
    _decide(offer, execution, OfferState.TAKEN, event=events.OFFER_TAKEN, by=by)


@transaction.atomic
def return_offers(*, execution: Execution, by: Actor) -> None:
    """The provider took none: give back what was handed, and all that came after it. Raises Fenced like `take_offer`."""
    _hold(execution)
    for row in _undecided(execution):
        _return(row, execution, by=by)


def decide_offers(execution: Execution, *, gone: bool, by: Actor) -> None:
    """Decide what is left when a turn ends, in the closing transaction: what was handed by what its provider has written down.

    `gone` says that its process was seen to be gone; one that is not could still write.
    """
    for row in _undecided(execution):
        heard = _has_heard(execution, row) if row.state == OfferState.HANDED else False
        if heard:
            _decide(row, execution, OfferState.TAKEN, event=events.OFFER_TAKEN, by=by)
            continue
        unproven = row.state == OfferState.HANDED and execution.state != ExecutionState.SUCCEEDED and not gone
        _return(row, execution, ended=True, doubtful=heard is None or unproven, by=by)


def _undecided(execution: Execution) -> Iterable[Offer]:
    """Lock what is not decided, in its order: somebody may be withdrawing it."""
    return Offer.objects.filter(execution=execution, state__in=OFFER.live).order_by("pk").select_for_update()


def _has_heard(execution: Execution, row: Offer) -> bool | None:
    """Return whether the turn had the message, by its provider's own notes; None when they cannot tell."""
    provider = cast(Remembering, registry.get(execution.provider))
    home = Path(settings.FLEET_HOMES) / execution.identity.slug
    try:
        return provider.has_heard(home, execution.session_id, str(row.uuid))
    except Exception:
        log.exception("offer.not_looked_up", offer=row.pk)
        return None


def _hold(execution: Execution) -> None:
    if not Execution.objects.owned(execution).select_for_update(no_key=True).values("pk").first():
        raise Fenced(f"Execution {execution.pk} belongs to another worker now.")


def _return(row: Offer, execution: Execution, *, by: Actor, ended: bool = False, doubtful: bool = False) -> None:
    told = {"ended": ended, "doubtful": doubtful}
    _decide(row, execution, OfferState.RETURNED, event=events.OFFER_RETURNED, by=by, told=told, doubtful=doubtful)


def _decide(
    row: Offer,
    execution: Execution,
    to: OfferState,
    *,
    event: str,
    by: Actor,
    told: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    details = {**_facts(row, execution), **(told or {})}
    move(row, OFFER, to, by=by, event=event, details=details, decided_at=clock.db_now(), **fields)


def _facts(row: Offer, execution: Execution) -> dict[str, Any]:
    return {
        "uuid": str(row.uuid),
        "execution": execution.pk,
        "origin_kind": execution.origin_kind,
        "origin_id": execution.origin_id,
    }
