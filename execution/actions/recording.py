"""What a running execution leaves behind: its events, and what it used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Max

from budgets import actions as budget_actions
from budgets.ports import LONGEST_NAME, Metered, UsageUnits
from budgets.states import Billing
from execution.cleaning import clean
from execution.models import Execution, ExecutionEvent
from execution.ports import Usage
from execution.states import LEASED, EventKind
from fleet.kernel import live
from fleet.kernel.exceptions import Fenced

# One statement and one round trip: the guard (as in `owned`) and the insert are the same thing. The unique key makes it
# repeatable after a commit whose reply was lost.
_INSERT = """
    INSERT INTO execution_executionevent (execution_id, sequence, kind, payload, through)
    SELECT execution.id, line.sequence, line.kind, line.payload::jsonb, %s
    FROM execution_execution AS execution,
         unnest(%s::int[], %s::text[], %s::text[]) AS line (sequence, kind, payload)
    WHERE execution.id = %s AND execution.epoch = %s AND execution.owner_id = %s AND execution.claimed_at = %s
        AND execution.state = ANY(%s)
    ON CONFLICT (execution_id, sequence) DO NOTHING
"""

# The same without the guard, for whoever has just closed the row.
_APPEND = """
    INSERT INTO execution_executionevent (execution_id, sequence, kind, payload)
    SELECT %s, line.sequence, line.kind, line.payload::jsonb
    FROM unnest(%s::int[], %s::text[], %s::text[]) AS line (sequence, kind, payload)
"""

_NAMES = ("message_id", "model")

Line = tuple[EventKind, dict[str, Any]]


def record_events(
    *, execution: Execution, first_sequence: int, lines: Sequence[Line], through: int | None = None
) -> int:
    """Insert events with consecutive sequences from `first_sequence`, hint to who watches, and return the next free sequence.

    `through` is how many of the provider's events are written with these: who goes on with the turn need not write them again.
    May be repeated with the same arguments. Raises Fenced when the execution is no longer this worker's.
    """
    guard = [execution.pk, execution.epoch, execution.owner_id, execution.claimed_at, [str(state) for state in LEASED]]
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [through, *_columns(first_sequence, lines), *guard])
        written = cursor.rowcount
    if written == 0 and not Execution.objects.owned(execution).exists():
        raise Fenced(f"Execution {execution.pk} belongs to another worker now.")
    following = first_sequence + len(lines)
    live.hint(f"execution:{execution.pk}", sequence=following - 1)
    return following


def append_events(*, execution: Execution, first_sequence: int, lines: Sequence[Line]) -> None:
    """Insert the last events of an execution that the caller's transaction has closed."""
    with connection.cursor() as cursor:
        cursor.execute(_APPEND, [execution.pk, *_columns(first_sequence, lines)])


def _columns(first_sequence: int, lines: Sequence[Line]) -> tuple[list[int], list[str], list[str]]:
    """Return the sequences, kinds and payloads of lines."""
    sequences = list(range(first_sequence, first_sequence + len(lines)))
    return sequences, [str(kind) for kind, _ in lines], [json.dumps(payload) for _, payload in lines]


@dataclass(frozen=True, slots=True)
class Written:
    """How far a turn is written: the next line's sequence, how many of the provider's events, and which calls were refused."""

    next_sequence: int
    through: int
    refused: frozenset[str]


def written(execution: Execution) -> Written:
    """Return how far the events of an execution are written."""
    lines = ExecutionEvent.objects.filter(execution=execution)
    last = lines.aggregate(sequence=Max("sequence"), through=Max("through"))
    refused = lines.filter(kind=EventKind.TOOL_DENIED).values_list("payload__call", flat=True)
    return Written(int(last["sequence"] or 0) + 1, int(last["through"] or 0), frozenset(refused))


def next_sequence(execution: Execution) -> int:
    """Return the sequence of the next event of an execution."""
    last = ExecutionEvent.objects.filter(execution=execution).aggregate(last=Max("sequence"))["last"]
    return int(last or 0) + 1


def meter(*, execution: Execution, usages: Sequence[Usage], billing: Billing) -> Metered | None:
    """Post what provider messages used, each counted once however often it is reported; None without a reservation.

    Numbers that cannot be true are left out.
    """
    if execution.reservation_id is None:
        return None
    return budget_actions.meter(
        reservation_id=execution.reservation_id,
        execution_id=execution.pk,
        usages=[_units(usage) for usage in usages if usage.is_believable()],
        provider=execution.provider,
        billing=billing,
    )


def _units(usage: Usage) -> UsageUnits:
    """Return it as the ledger takes it. A message may have a longer name there: one of the same length then stands for it."""
    named = clean(usage.message_id)
    if not 0 < len(named) <= LONGEST_NAME:
        named = hashlib.sha256(named.encode()).hexdigest()
    units = {name: getattr(usage, name) for name in Usage.__slots__ if name not in _NAMES}
    return UsageUnits(message_id=named, model=clean(usage.model)[:LONGEST_NAME], **units)
