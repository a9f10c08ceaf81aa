"""Many runs at once, each on its own connection: never above the cap, never stuck on each other."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from budgets import actions
from budgets.models import BudgetWindow, Reservation, ReservationLeg, TokenLedger
from budgets.states import Metric, Period, ReservationState
from fleet.kernel.models import JournalEntry
from tests.budgets import scenes
from tests.budgets.scenes import ADA, BOB, BY, bot_budget, fleet_budget, metric_budget, reserve, use, window
from tests.factories.budgets import CENT, BudgetFactory

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 32


@pytest.fixture(autouse=True)
def _prices(transactional_db: None) -> None:
    scenes.price_list()


def at_once(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Do `work(0)` … `work(count - 1)` in as many threads, all starting together; return the results, errors included."""
    start = threading.Barrier(count)

    def one(number: int) -> Any:
        start.wait(timeout=60)
        try:
            return work(number)
        except actions.BudgetRefused as refusal:
            return refusal
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return [future.result(timeout=120) for future in [pool.submit(one, number) for number in range(count)]]


def held_cents(reservation: Reservation) -> int:
    """What a run may use without an overrun."""
    legs = ReservationLeg.objects.filter(reservation=reservation, budget__metric=Metric.IMPUTED)
    return min(leg.held for leg in legs) // CENT


def test_thirty_two_runs_over_nested_budgets_never_pass_the_cap():
    fleet, ada = fleet_budget(cents=300), bot_budget("ada", cents=200)
    bot_budget("bob", cents=10_000), metric_budget(Metric.TOKENS, 10**9, period=Period.MONTH)
    BudgetFactory(scope_kind="person", scope_id="7", limit_amount=250 * CENT)

    def live_a_life(number: int) -> None:
        dice = random.Random(number)
        for turn in range(4):
            scopes = dice.choice([ADA, BOB, ADA | {"person": "7"}, BOB | {"person": "7"}])
            reservation = reserve(f"{number}:{turn}", scopes)
            for message in range(dice.randrange(4)):
                use(
                    reservation,
                    min(dice.randrange(1, 9), held_cents(reservation)),
                    f"m{message}",
                    execution=number * 10 + turn,
                )
                scenes.assert_never_above_limits()
            dice.choice([actions.settle, actions.release])(reservation_id=reservation.pk, by=BY)

    at_once(live_a_life)
    scenes.assert_books_are_right()
    for row in BudgetWindow.objects.all():
        assert row.posted <= row.limit_amount
        assert (row.pending, row.overrun) == (0, 0)
    assert window(fleet).posted >= window(ada).posted > 0


def test_the_last_of_a_budget_goes_to_as_many_runs_as_fit():
    budget = fleet_budget(cents=110)
    results = at_once(lambda number: reserve(f"turn:{number}"))
    granted = [result for result in results if isinstance(result, Reservation)]
    assert len(granted) == 5  # four whole slices, and the ten cents that are left
    assert window(budget).pending == 110 * CENT
    assert {result.code for result in results if result not in granted} == {"wait"}


def test_the_first_runs_of_a_day_make_one_window_together():
    budgets = [fleet_budget(cents=10_000), bot_budget("ada", cents=10_000), bot_budget("bob", cents=10_000)]
    at_once(
        lambda number: reserve(f"turn:{number}", dict(list((ADA, BOB)[number % 2].items())[:: random.choice((1, -1))]))
    )
    assert BudgetWindow.objects.count() == len(budgets)
    assert window(budgets[0]).pending == THREADS * 25 * CENT


@pytest.mark.parametrize("budgets", [0, 1])
def test_one_attempt_in_many_processes_is_one_reservation(budgets):
    for _ in range(budgets):
        fleet_budget(cents=25)
    results = at_once(lambda _: reserve("turn:1"), 12)
    assert len({result.pk for result in results}) == 1
    assert ReservationLeg.objects.count() == budgets
    assert JournalEntry.objects.filter(event="budgets.reservation.held").count() == 1


def test_one_report_in_many_processes_is_posted_once():
    budget, reservation = fleet_budget(), reserve()
    at_once(lambda number: use(reservation, 5 + number % 3), 12)
    assert window(budget).posted == 7 * CENT
    assert TokenLedger.objects.filter(unit="run").count() == 1


def test_one_end_in_many_processes_is_one_end():
    budget, reservation = fleet_budget(), reserve()
    endings = (actions.settle, actions.release, actions.hold_uncertain)
    at_once(lambda number: endings[number % 3](reservation_id=reservation.pk, by=BY), 12)
    assert Reservation.objects.get().state in (ReservationState.SETTLED, ReservationState.RELEASED)
    assert window(budget).pending == 0
    ends = JournalEntry.objects.filter(event__in=["budgets.reservation.settled", "budgets.reservation.released"])
    assert ends.count() == 1


def test_changing_a_limit_while_runs_reserve_leaves_window_and_budget_agreed():
    budget = fleet_budget(cents=10_000)

    def work(number: int) -> None:
        if number % 4:
            reserve(f"turn:{number}")
        else:
            actions.change_budget(budget_id=budget.pk, by=BY, limit_amount=(10_000 + number) * CENT)

    at_once(work, 16)
    budget.refresh_from_db()
    assert window(budget).limit_amount == budget.limit_amount
    scenes.assert_books_are_right()
