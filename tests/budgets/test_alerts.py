"""Alerts are said once per window and threshold."""

import pytest
import time_machine

from budgets import actions
from budgets.models import BudgetAlert
from budgets.states import Mode
from fleet.kernel.models import JournalEntry
from tests.budgets.scenes import BY, fleet_budget, reserve, use
from tests.factories.budgets import CENT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("prices")]


def fired() -> list[int]:
    return list(BudgetAlert.objects.order_by("pk").values_list("threshold", flat=True))


@pytest.mark.parametrize(
    ("cents", "thresholds"), [(49, []), (50, [50]), (80, [50, 80]), (95, [50, 80, 95]), (100, [50, 80, 95, 100])]
)
def test_half_four_fifths_nearly_all_and_all_are_told(cents, thresholds):
    fleet_budget(cents=100)
    use(reserve(), cents)
    assert fired() == thresholds
    assert JournalEntry.objects.filter(event="budgets.alert.raised").count() == len(thresholds)


def test_the_same_threshold_is_told_once():
    fleet_budget(cents=100)
    reservation = reserve()
    for number in range(6):
        use(reservation, 10, f"m{number}")
    assert fired() == [50]


def test_raising_the_limit_never_tells_lower_thresholds_again():
    budget, reservation = fleet_budget(cents=100), reserve()
    use(reservation, 85, "m1")
    actions.change_budget(budget_id=budget.pk, by=BY, limit_amount=1000 * CENT)
    use(reservation, 700, "m2")
    assert fired() == [50, 80]
    use(reservation, 200, "m3")
    assert fired() == [50, 80, 95]


def test_lowering_the_limit_alters_nothing_that_was_posted_and_tells_what_it_means_now():
    budget, reservation = fleet_budget(cents=100), reserve()
    use(reservation, 40, "m1")
    actions.change_budget(budget_id=budget.pk, by=BY, limit_amount=45 * CENT)
    window = budget.windows.get()
    assert (window.posted, window.limit_amount) == (40 * CENT, 45 * CENT)
    use(reservation, 1, "m2")
    assert fired() == [50, 80]


def test_a_new_window_tells_anew():
    fleet_budget(cents=100)
    for day in ("2026-11-22", "2026-11-23"):
        with time_machine.travel(f"{day}T12:00:00Z", tick=False):
            use(reserve(day), 60, execution=int(day[-2:]))
    assert fired() == [50, 50]


def test_an_observing_budget_is_silent():
    fleet_budget(cents=10, mode=Mode.OBSERVE)
    use(reserve(), 60)
    assert fired() == []


def test_a_soft_budget_speaks():
    fleet_budget(cents=10, mode=Mode.SOFT)
    use(reserve(), 10)
    assert fired() == [50, 80, 95, 100]


def test_a_budget_may_have_thresholds_of_its_own():
    fleet_budget(cents=100, thresholds=[10, 200])
    use(reserve(), 30)
    assert fired() == [10]
