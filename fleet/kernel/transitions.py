"""How a state moves: a table as data, and one guarded UPDATE that succeeds for exactly one caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pgtrigger
from django.db import models, transaction

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import StateConflict

Row = TypeVar("Row", bound=models.Model)


@dataclass(frozen=True)
class Machine:
    """A noun's states and the steps between them; `docs/states/<noun>.md` is drawn from it."""

    noun: str
    initial: str
    steps: Mapping[str, tuple[str, ...]]
    meaning: Mapping[str, str]

    def allows(self, source: str, target: str) -> bool:
        """Return whether a row may go from `source` to `target`."""
        return target in self.steps.get(source, ())

    @property
    def final(self) -> tuple[str, ...]:
        """Return the states that nothing leaves."""
        return tuple(state for state, targets in self.steps.items() if not targets)

    @property
    def live(self) -> tuple[str, ...]:
        """Return the states that something leaves."""
        return tuple(state for state, targets in self.steps.items() if targets)


def steps_trigger(machine: Machine) -> pgtrigger.FSM:
    """Return the trigger by which the database itself refuses a step that the table does not have."""
    steps = [(source, target) for source, targets in machine.steps.items() for target in targets]
    return pgtrigger.FSM(name="steps", field="state", transitions=steps)


def move(
    row: Row,
    machine: Machine,
    to: str,
    *,
    by: Actor,
    event: str,
    guard: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Row:
    """Move `row` to the state `to`, set `fields` with it, and write the journal row `event`.

    The UPDATE matches the state the caller has seen (and `guard`, e.g. epoch and owner); if it changes no row somebody was
    faster and StateConflict is raised, with nothing written. Expressions are allowed in `fields`: refresh the row to see
    their values.
    """
    source: str = row.state  # type: ignore[attr-defined]
    if not machine.allows(source, to):
        raise StateConflict(f"This {machine.noun} is {source} and cannot become {to}.", next_step="Read it again.")
    rows = type(row)._base_manager.filter(pk=row.pk, state=source, **(guard or {}))
    # No savepoint of its own (two round trips on every step): the conflict is raised outside, so it spoils no outer transaction.
    with transaction.atomic(savepoint=False):
        changed = rows.update(state=to, **fields)
        if changed:
            row.state = to  # type: ignore[attr-defined]
            for name, value in fields.items():
                setattr(row, name, value)
            journal.record(
                event, by=by, subject=(machine.noun, row.pk), **{"from": source, "to": to, **(details or {})}
            )
    if not changed:
        raise StateConflict(f"This {machine.noun} is no longer {source}.", next_step="Read it again.")
    return row
