"""A turn whose worker is lost and whose process is gone: whatever its provider has written down is kept, and nothing is repeated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F

from execution import queries
from execution.actions.closing import Ending, close
from execution.actions.recording import Line, meter
from execution.cleaning import clean
from execution.models import Execution, ExecutionQuerySet
from execution.policies import sentence_of_stop
from execution.ports import Recovered
from execution.providers import registry
from execution.shim import leftovers, processes
from execution.states import AT_LEAST, UNKNOWN, EventKind, ExecutionState, OutcomeClass
from fleet.kernel.actors import Actor

log = structlog.get_logger(__name__)
_HUNT_SECONDS = 5.0
_UNITS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
_UNKNOWN = {"cost_basis": UNKNOWN}
_LOST = (
    "The worker that ran this was lost in the middle of it, and its answer with it. It may have been paid for, so it is not "
    "repeated by itself. Please ask again if you still need it."
)
_CUT_OFF = (
    "The worker that ran this was lost in the middle of it. What had been written until then is kept above. It is not repeated by "
    "itself, since it may have been paid for. Please ask again if you still need the rest."
)
_MARK = "\n\n(The worker that ran this was lost. This answer was recovered from what the provider had written down.)"
_RECOVERED: Line = (EventKind.NOTICE, {"text": _MARK.strip().strip("()")})


@transaction.atomic
def close_as_lost(*, execution: Execution, by: Actor) -> Execution | None:
    """Close a turn that its worker cannot go on with; None when it is no longer this worker's."""
    halted = halted_by([execution]).get(execution.pk)
    return close_lost(Execution.objects.owned(execution), execution, by=by, halted=halted)


@dataclass(frozen=True, slots=True)
class Halted:
    """Why a turn that nobody held was ended, if it was."""

    outcome: OutcomeClass
    sentence: str


def halted_by(rows: Collection[Execution]) -> dict[int, Halted]:
    """Return those of these turns that an order in force or a person wants stopped. One query while nothing is stopped; none for none."""
    ordered = queries.ordered_to_die(rows) if rows else {}
    halted = {pk: Halted(OutcomeClass.GOVERNANCE, sentence) for pk, sentence in ordered.items()}
    for row in rows:
        if row.stop_requested_at is not None:
            halted.setdefault(row.pk, Halted(OutcomeClass.STOPPED, sentence_of_stop(row.stop_reason)))
    return halted


def close_lost(rows: ExecutionQuerySet, row: Execution, *, by: Actor, halted: Halted | None = None) -> Execution | None:
    """Close the released turn that `rows` still matches, with what can be recovered of it, in the caller's transaction.

    A whole answer is an answer, and says how it came; a part of one is kept beside the sentence that it is one. None when another one
    has closed it meanwhile.
    """
    gone = is_gone(row)
    recovered = _recover(row) if gone else None
    # Before anything is metered: to the budget a report is a sign of life, and what was held as uncertain would be held again.
    if not rows.select_for_update(no_key=True).values("pk").first():
        return None
    costs = _meter(row, recovered)
    text = clean(recovered.text) if recovered else ""
    if recovered and recovered.is_whole and text:
        ending = Ending(
            ExecutionState.SUCCEEDED,
            OutcomeClass.OK,
            answer=text + _MARK,
            gone=gone,
            unmetered=costs == _UNKNOWN,
            fields=_fields(recovered, costs),
        )
        return close(rows, ending=ending, lines=[_RECOVERED], by=by)
    text = text or queries.shown_text(row)
    lost = Halted(OutcomeClass.LOST, _CUT_OFF if text.strip() else _LOST)
    why = halted if halted and gone else lost
    ending = Ending(
        ExecutionState.LOST if why is lost else ExecutionState.STOPPED,
        why.outcome,
        why.sentence,
        answer=text,
        gone=gone,
        unmetered=costs == _UNKNOWN or (bool(costs) and registry.get(row.provider).capabilities.counts_whole),
        fields=_fields(recovered, costs),
    )
    return close(rows, ending=ending, by=by)


def is_gone(row: Execution) -> bool:
    """Return whether the turn's process is over, with everything that carries its marker; what is left of a dead shim's tree is ended."""
    gone = processes.proven_gone(row.boot_id, row.pid, row.pid_started_at)
    return gone and leftovers.hunt(row.marker, _HUNT_SECONDS)


def _recover(row: Execution) -> Recovered | None:
    home = Path(settings.FLEET_HOMES) / row.identity.slug
    try:
        return registry.get(row.provider).recover(home, row.session_id, str(row.prompt[-1]["uuid"]))
    except Exception:
        log.exception("execution.not_recovered", execution=row.pk)
        return None


def _meter(row: Execution, recovered: Recovered | None) -> dict[str, Any]:
    """Post what was used and not posted yet, each message once; return what is known of the cost, which may be less than it was.

    Where nothing was counted it is unknown, never zero; but a provider that counts as it goes has used nothing by then.
    """
    usages = recovered.usages if recovered else ()
    provider = registry.get(row.provider)
    metered = meter(execution=row, usages=usages, billing=provider.billing())
    if metered is None or not (usages or metered.total_nano_usd):
        return dict(_UNKNOWN) if provider.capabilities.counts_late else {}
    is_all = recovered is not None and recovered.is_whole
    return {"cost_nano_usd": metered.total_nano_usd, "cost_basis": metered.basis if is_all else AT_LEAST}


def _fields(recovered: Recovered | None, costs: dict[str, Any]) -> dict[str, Any]:
    usages = [usage for usage in recovered.usages if usage.is_believable()] if recovered else []
    tokens = {unit: sum(getattr(usage, unit) for usage in usages) for unit in _UNITS} if usages else {}
    return {"epoch": F("epoch") + 1, "details": {"recovered": recovered is not None}, **tokens, **costs}
