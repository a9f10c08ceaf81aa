"""A process may die before any statement: nothing of the action is left then, and doing it again gives what it would have given."""

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction

from budgets import actions
from budgets.models import Reservation
from budgets.states import Mode
from fleet.kernel.models import JournalEntry
from tests.budgets import scenes
from tests.budgets.scenes import BY, bot_budget, fleet_budget, reserve, use
from tests.budgets.test_settling import expire

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("prices")]


class Crash(BaseException):
    """The process died here: no error that anybody could catch and go on from."""


def die_before(statement: int) -> Callable[..., Any]:
    """A statement counter that dies."""
    left = statement

    def count(execute: Any, *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise Crash
        return execute(*arguments)

    return count


def everything() -> dict[str, list[Any]]:
    """All rows of all budget tables and the journal, without what the database's clock wrote."""
    clocks = {"lease_until", "uncertain_until", "created_at", "ended_at", "recorded_at", "at", "transaction"}
    models = [*apps.get_app_config("budgets").get_models(), JournalEntry]
    return {
        model.__name__: sorted(
            [str(value) for name, value in row.items() if name not in clocks] for row in model.objects.values()
        )
        for model in models
    }


def no_ids(rows: dict[str, list[Any]]) -> dict[str, int]:
    """How many rows of each table: ids differ between two ways to the same end."""
    return {name: len(found) for name, found in rows.items()}


ACTIONS = {
    "reserve": lambda: reserve("turn:2"),
    "meter": lambda: use(Reservation.objects.get(attempt="turn:1"), 24),
    "settle": lambda: actions.settle(reservation_id=Reservation.objects.get(attempt="turn:1").pk, by=BY),
    "hold_uncertain": lambda: actions.hold_uncertain(
        reservation_id=Reservation.objects.get(attempt="turn:1").pk, by=BY
    ),
    "sweep": actions.sweep_reservations,
    "import_prices": lambda: actions.import_prices(by=BY),
}


@pytest.fixture
def run():
    """A run under three budgets, whose lease has ended."""
    fleet_budget(), bot_budget(), bot_budget(mode=Mode.SOFT, cents=20)
    reservation = reserve("turn:1")
    use(reservation, 3)
    expire(reservation)
    return reservation


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_happens_wholly_or_not_at_all_and_can_be_repeated(run, name):
    before = everything()
    with transaction.atomic():
        ACTIONS[name]()
        undisturbed = everything()
        transaction.set_rollback(True)
    statement = 0
    while True:
        statement += 1
        try:
            with transaction.atomic(), connection.execute_wrapper(die_before(statement)):
                ACTIONS[name]()
            break
        except Crash:
            assert everything() == before
    assert statement > 3
    assert no_ids(everything()) == no_ids(undisturbed) != no_ids(before)
    scenes.assert_books_are_right()
