"""The books of one reservation: its legs and their windows, locked, changed in memory and written back together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from django.db import connection

from budgets.actions.windows import lock_windows, open_windows
from budgets.models import BudgetWindow, Reservation, ReservationLeg, TokenLedger
from budgets.policies import SLICE, TOP_UP_AT_LEFT
from budgets.states import Metric, Mode
from fleet.kernel import clock

# A stream is metered message by message: written out, this is ten times faster than two calls of bulk_update.
_SAVE = """
    WITH legs AS (
        UPDATE budgets_reservationleg AS leg
        SET window_id = new.window_id, granted = new.granted, held = new.held, overrun = new.overrun
        FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
            AS new (id, window_id, granted, held, overrun)
        WHERE leg.id = new.id)
    UPDATE budgets_budgetwindow AS present
    SET posted = new.posted, pending = new.pending, overrun = new.overrun, alerted = new.alerted
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[])
        AS new (id, posted, pending, overrun, alerted)
    WHERE present.id = new.id
"""


@dataclass
class Books:
    """A reservation's legs with every window they touch. Nothing is written before `save`.

    `topped_up` and `overran` are amounts by budget id (as text), for the journal.
    """

    legs: list[ReservationLeg]
    now: dt.datetime
    by_id: dict[int, BudgetWindow]
    topped_up: dict[str, int] = field(default_factory=dict)
    overran: dict[str, int] = field(default_factory=dict)

    def windows(self) -> list[BudgetWindow]:
        """Return the locked windows."""
        return list(self.by_id.values())

    def post(self, row: TokenLedger) -> None:
        """Count a ledger row on every leg, in the window of its own time; what no hold covers is overrun.

        Rows must come in the order of their time: a hold moves forward with them, never back.
        """
        for leg in self.legs:
            self._carry(leg, row.at)
            amount = row.amount(leg.budget.metric)
            window = self._window(leg.budget_id, row.at)
            covered = min(amount, leg.held) if window.pk == leg.window_id else 0
            leg.held -= covered
            window.pending -= covered
            window.posted += amount
            self._overrun(leg, window, amount - covered)

    def _overrun(self, leg: ReservationLeg, window: BudgetWindow, amount: int) -> None:
        leg.overrun += amount
        window.overrun += amount
        if amount and leg.budget.mode == Mode.HARD:
            key = str(leg.budget_id)
            self.overran[key] = self.overran.get(key, 0) + amount

    def carry_over(self) -> None:
        """Move holds whose period has ended into the window of this moment."""
        for leg in self.legs:
            self._carry(leg, self.now)

    def _carry(self, leg: ReservationLeg, moment: dt.datetime) -> None:
        """Move a hold into the window of a later moment, as far as that one has room."""
        old = self.by_id[leg.window_id]
        if moment < old.ends_at:
            return
        new = self._window(leg.budget_id, moment)
        old.pending -= leg.held
        leg.held = min(leg.held, _room(leg, new))
        new.pending += leg.held
        leg.window = new

    def top_up(self, *, allowed: Callable[[], bool]) -> bool:
        """Fill up the slices of which 80 % are gone; return whether a hard one stays that low.

        `allowed` is asked only when something has to be added.
        """
        low = [leg for leg in self.legs if _is_low(leg)]
        if not low:
            return False
        if not allowed():
            return True
        short = [self._fill(leg) for leg in low]
        return any(short)

    def _fill(self, leg: ReservationLeg) -> bool:
        """Add what is missing to a slice; return whether a hard budget could not bring it above the mark."""
        window = self.by_id[leg.window_id]
        added = min(SLICE[leg.budget.metric] - leg.held, _room(leg, window))
        if added > 0:
            leg.held += added
            window.pending += added
            self.topped_up[str(leg.budget_id)] = added
        if leg.held * TOP_UP_AT_LEFT <= leg.granted:
            return bool(leg.budget.mode == Mode.HARD)
        leg.granted = leg.held
        return False

    def give_back(self) -> dict[str, int]:
        """Return every hold to its window; the amounts by budget id (as text)."""
        returned = {str(leg.budget_id): leg.held for leg in self.legs if leg.held}
        for leg in self.legs:
            self.by_id[leg.window_id].pending -= leg.held
            leg.held = 0
        return returned

    def save(self) -> None:
        """Write legs and windows back, in one statement."""
        legs = [(leg.pk, leg.window_id, leg.granted, leg.held, leg.overrun) for leg in self.legs]
        windows = [(row.pk, row.posted, row.pending, row.overrun, row.alerted) for row in self.by_id.values()]
        if legs:
            with connection.cursor() as cursor:
                cursor.execute(_SAVE, [*map(list, zip(*legs, strict=True)), *map(list, zip(*windows, strict=True))])

    def _window(self, budget_id: int, moment: dt.datetime) -> BudgetWindow:
        return next(
            window for window in self.by_id.values() if window.budget_id == budget_id and window.contains(moment)
        )


def _is_low(leg: ReservationLeg) -> bool:
    """Return whether a slice needs more. A run is counted once, and a free model needs nothing until it overran."""
    if leg.budget.metric == Metric.RUNS or not (leg.granted or leg.overrun):
        return False
    return leg.held * TOP_UP_AT_LEFT <= leg.granted


def _room(leg: ReservationLeg, window: BudgetWindow) -> int:
    """Return how much more this leg may hold: what a hard budget has left, or one slice."""
    most = SLICE[leg.budget.metric]
    return max(0, min(most, window.headroom)) if leg.budget.mode == Mode.HARD else most


def open_books(reservation: Reservation, moments: Iterable[dt.datetime] = ()) -> Books:
    """Lock the windows of a reservation's legs and those around `moments`, in one order; return the books.

    The reservation must be locked. The last of the moments is the present; without any, only the legs' own windows are locked.
    """
    moments = set(moments)
    legs = list(reservation.legs.select_related("window") if moments else reservation.legs.all())
    ids = {leg.window_id for leg in legs}
    for moment in moments:
        if outside := [leg.budget_id for leg in legs if not leg.window.contains(moment)]:
            ids |= {window.pk for window in open_windows(outside, moment).values()}
    windows = lock_windows(ids) if ids else {}
    for leg in legs:
        leg.budget = windows[leg.window_id].budget
    return Books(legs=legs, now=max(moments, default=clock.now()), by_id=windows)
