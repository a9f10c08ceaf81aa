"""The end of a reservation: one final state, whatever comes, in any order and however often."""

import datetime as dt
import itertools

import pytest
from django.db import DatabaseError, transaction

from budgets import actions
from budgets.actions import settling
from budgets.actions.settling import Swept
from budgets.models import Reservation
from budgets.states import RESERVATION, ReservationState
from fleet.kernel import clock
from fleet.kernel.exceptions import NotFound
from fleet.kernel.models import JournalEntry
from tests.budgets import scenes
from tests.budgets.scenes import BY, bot_budget, fleet_budget, reserve, use, window
from tests.factories.budgets import CENT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("prices")]

ENDINGS = {
    "settle": actions.settle,
    "release": actions.release,
    "hold_uncertain": actions.hold_uncertain,
}


def end(reservation: Reservation, how: str) -> Reservation:
    return ENDINGS[how](reservation_id=reservation.pk, by=BY)


def expire(reservation: Reservation, field: str = "lease_until") -> None:
    """Let the lease of a reservation have ended, by the database's clock."""
    Reservation.objects.filter(pk=reservation.pk).update(**{field: clock.db_now(dt.timedelta(seconds=-1))})


def state(reservation: Reservation) -> str:
    return Reservation.objects.get(pk=reservation.pk).state


def test_settling_gives_back_what_was_not_used():
    fleet, ada, reservation = fleet_budget(), bot_budget(), reserve()
    use(reservation, 5)
    assert end(reservation, "settle").state == ReservationState.SETTLED
    for budget in (fleet, ada):
        assert (window(budget).posted, window(budget).pending) == (5 * CENT, 0)


def test_releasing_gives_back_everything():
    budget, reservation = fleet_budget(), reserve()
    assert end(reservation, "release").state == ReservationState.RELEASED
    assert (window(budget).posted, window(budget).pending) == (0, 0)


def test_the_end_is_journaled_with_what_it_cost_and_what_went_back():
    budget, reservation = fleet_budget(), reserve()
    use(reservation, 5)
    end(reservation, "settle")
    details = JournalEntry.objects.get(event="budgets.reservation.settled").details
    assert (details["cost_nano_usd"], details["returned"]) == (5 * CENT, {str(budget.pk): 20 * CENT})


@pytest.mark.parametrize("order", itertools.product(ENDINGS, repeat=3), ids="-".join)
def test_in_any_order_and_repetition_the_first_ending_stands(order):
    budget, reservation = fleet_budget(), reserve()
    use(reservation, 5)
    finals = []
    for how in order:
        end(reservation, how)
        finals.append(state(reservation))
    ended = [final for final in finals if final in RESERVATION.final]
    assert len(set(ended)) <= 1
    assert window(budget).posted == 5 * CENT
    assert window(budget).pending == (0 if ended else 20 * CENT)
    endings = JournalEntry.objects.filter(event__in=["budgets.reservation.settled", "budgets.reservation.released"])
    assert endings.count() == (1 if ended else 0)


def test_what_is_uncertain_stays_held_until_it_is_settled():
    budget, reservation = fleet_budget(), reserve()
    use(reservation, 5)
    end(reservation, "hold_uncertain")
    assert window(budget).pending == 20 * CENT
    use(reservation, 7)  # the transcript proves two more
    end(reservation, "settle")
    assert (window(budget).posted, window(budget).pending) == (7 * CENT, 0)


def test_an_unknown_reservation_cannot_be_ended():
    with pytest.raises(NotFound):
        actions.settle(reservation_id=404, by=BY)


def test_the_database_refuses_a_way_back():
    reservation = reserve()
    end(reservation, "settle")
    with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
        Reservation.objects.filter(pk=reservation.pk).update(state=ReservationState.HELD, ended_at=None)


class TestTheSweep:
    def test_a_hold_without_a_sign_of_life_becomes_uncertain_and_stays_bounded(self):
        budget, reservation = fleet_budget(), reserve()
        expire(reservation)
        assert actions.sweep_reservations() == Swept(uncertain=1, released=0)
        assert state(reservation) == ReservationState.UNCERTAIN
        assert window(budget).pending == 25 * CENT
        entry = JournalEntry.objects.get(event="budgets.reservation.uncertain")
        assert entry.details["held"] == {str(budget.pk): 25 * CENT}

    def test_a_hold_with_a_lease_is_left_alone(self):
        reservation = reserve()
        assert actions.sweep_reservations() == Swept(uncertain=0, released=0)
        assert state(reservation) == ReservationState.HELD

    def test_a_report_is_a_sign_of_life(self):
        reservation = reserve()
        expire(reservation)
        use(reservation, 1)
        assert actions.sweep_reservations() == Swept(uncertain=0, released=0)

    def test_renewing_is_a_sign_of_life(self):
        alive, dead, ended = reserve("a"), reserve("b"), reserve("c")
        expire(alive), expire(dead)
        end(ended, "settle")
        assert actions.renew([alive.pk, ended.pk]) == 1
        actions.sweep_reservations()
        assert [state(row) for row in (alive, dead, ended)] == ["held", "uncertain", "settled"]

    def test_an_uncertain_hold_goes_back_after_a_day_and_the_journal_says_so(self):
        budget, reservation = fleet_budget(), reserve()
        end(reservation, "hold_uncertain")
        assert actions.sweep_reservations() == Swept(uncertain=0, released=0)
        expire(reservation, "uncertain_until")
        assert actions.sweep_reservations() == Swept(uncertain=0, released=1)
        assert state(reservation) == ReservationState.RELEASED
        assert window(budget).pending == 0
        assert JournalEntry.objects.get(event="budgets.reservation.released").actor_name == "sweep"

    def test_sweeping_again_finds_nothing(self):
        expire(reserve())
        actions.sweep_reservations()
        assert actions.sweep_reservations() == Swept(uncertain=0, released=0)

    def test_a_reservation_that_cannot_be_ended_does_not_hold_up_the_others(self, monkeypatch):
        poison, other = reserve("a"), reserve("b")
        expire(poison), expire(other)
        move = settling.move

        def stumble(row, *args, **fields):
            if row.pk == poison.pk:
                raise ValueError("nobody thought of this")
            return move(row, *args, **fields)

        monkeypatch.setattr(settling, "move", stumble)
        assert actions.sweep_reservations() == Swept(uncertain=1, released=0)
        assert [state(row) for row in (poison, other)] == ["held", "uncertain"]

    def test_it_works_in_bounded_portions(self):
        for number in range(3):
            expire(reserve(f"turn:{number}"))
        assert actions.sweep_reservations(limit=2).uncertain == 2
        assert actions.sweep_reservations(limit=2).uncertain == 1


def test_the_books_are_right_after_all_of_it():
    fleet_budget(), bot_budget()
    for number, how in enumerate(ENDINGS):
        reservation = reserve(f"turn:{number}")
        use(reservation, number + 1, execution=number)
        end(reservation, how)
    scenes.assert_books_are_right()
