"""Whatever happens in whatever order, the books are right after every step."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from django.db.models import Sum
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from budgets import actions
from budgets.models import Budget, BudgetAlert, BudgetWindow, Reservation, TokenLedger
from budgets.policies import SMALLEST, BudgetRefused
from budgets.states import RESERVATION, Metric, Mode, Period, RefusalKind, Scope
from fleet.kernel import clock
from tests.budgets import scenes
from tests.budgets.scenes import ADA, BOB, BY
from tests.factories.budgets import CENT, BudgetFactory

SATURDAY = dt.datetime(2026, 10, 24, 18, tzinfo=dt.UTC)  # Berlin's next day has 25 hours
ENDINGS = (actions.settle, actions.release, actions.hold_uncertain)


class Crash(Exception):
    """The process died here."""


class Spending(RuleBasedStateMachine):
    """Two bots run, report, end, vanish and crash under six budgets, while days pass, limits rise and prices change."""

    reservations: Bundle[int] = Bundle("reservations")
    messages = st.sampled_from(["m1", "m2", "m3"])
    models = st.sampled_from(["penny", "free", "penny", "gpt-oracle-9"])
    outputs = st.integers(0, 40)
    billings = st.sampled_from(["api", "subscription"])
    scopes = st.sampled_from([ADA, BOB, ADA | {"person": "7"}])

    def __init__(self) -> None:
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        self.travel = time_machine.travel(SATURDAY, tick=False)
        self.clock = self.travel.start()
        scenes.price_list()
        self.fleet = scenes.fleet_budget(600, timezone="Europe/Berlin")
        scenes.bot_budget("ada", 200)
        scenes.bot_budget("bob", 100, mode=Mode.SOFT)
        scenes.metric_budget(Metric.RUNS, 12, period=Period.ROLLING, hours=5)
        scenes.metric_budget(Metric.TOKENS, 10**6, period=Period.WEEK)
        BudgetFactory(
            scope_kind=Scope.PERSON, scope_id="7", metric=Metric.BILLED, limit_amount=10**12, period=Period.MONTH
        )
        self.ended: dict[int, str] = {}
        self.costs: dict[int, int] = {}
        self.alerts: set[tuple[int, int]] = set()
        self.attempts = 0

    def teardown(self) -> None:
        self.travel.stop()
        transaction.set_rollback(True)
        self.transaction.__exit__(None, None, None)

    @rule(target=reservations, scopes=scopes, model=st.sampled_from(["penny", "free"]))
    def start_a_run(self, scopes: dict[str, str], model: str) -> Any:
        self.attempts += 1
        try:
            return scenes.reserve(f"attempt:{self.attempts}", scopes, model).pk
        except BudgetRefused as refusal:
            self._assert_refusal_is_true(refusal)
            return multiple()

    def _assert_refusal_is_true(self, refusal: BudgetRefused) -> None:
        """A hard budget of that name has less left than the smallest hold, for the reason given."""
        window = BudgetWindow.objects.filter(budget__name=refusal.budget, starts_at__lte=clock.now()).latest(
            "starts_at"
        )
        least = SMALLEST[window.budget.metric]
        assert window.budget.mode == Mode.HARD
        assert window.headroom < least
        assert (refusal.code == RefusalKind.WAIT) == (window.limit_amount - window.posted >= least)

    @rule(pk=reservations)
    def repeat_an_attempt(self, pk: int) -> None:
        made = Reservation.objects.get(pk=pk)
        assert scenes.reserve(made.attempt, made.scopes, made.model).pk == pk

    @rule(
        pk=reservations,
        message=messages,
        model=models,
        output=outputs,
        age=st.integers(0, 20),
        billing=st.sampled_from(["api", "subscription"]),
    )
    def report(self, pk: int, message: str, model: str, output: int, age: int, billing: str) -> None:
        self._report(pk, message, model, output, billing, clock.now() - dt.timedelta(hours=age))
        before = TokenLedger.objects.count()
        again = self._report(pk, message, model, output, billing, None)
        assert again.cost_nano_usd == 0
        assert TokenLedger.objects.count() == before

    def _report(self, pk: int, message: str, model: str, output: int, billing: str, at: dt.datetime | None) -> Any:
        return scenes.use(Reservation(pk=pk), output, message, execution=pk, model=model, billing=billing, at=at)

    @rule(pk=reservations, how=st.sampled_from(ENDINGS))
    def end(self, pk: int, how: Any) -> None:
        how(reservation_id=pk, by=BY)

    @rule(pk=reservations, statement=st.integers(1, 12), how=st.sampled_from([*ENDINGS, None]))
    def die_on_the_way(self, pk: int, statement: int, how: Any) -> None:
        """The process dies before one of its statements: nothing of that action may be left."""
        left = statement

        def die(execute: Any, sql: str, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                raise Crash
            return execute(sql, *arguments)

        try:
            with transaction.atomic(), connection.execute_wrapper(die):
                how(reservation_id=pk, by=BY) if how else self._report(pk, "m1", "penny", 40, "api", None)
        except Crash:
            pass

    @rule(pks=st.lists(reservations, max_size=3))
    def vanish(self, pks: list[int]) -> None:
        """Workers die; the sweep comes by."""
        Reservation.objects.filter(pk__in=pks).update(lease_until=clock.db_now(dt.timedelta(seconds=-1)))
        actions.sweep_reservations()

    @rule(pk=consumes(reservations))
    def nobody_ever_says_what_became_of_it(self, pk: int) -> None:
        actions.hold_uncertain(reservation_id=pk, by=BY)
        Reservation.objects.filter(pk=pk).exclude(uncertain_until=None).update(
            uncertain_until=clock.db_now(dt.timedelta(seconds=-1))
        )
        actions.sweep_reservations()
        assert Reservation.objects.get(pk=pk).state in RESERVATION.final

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.clock.shift(dt.timedelta(hours=hours))

    @rule(cents=st.integers(1, 200))
    def raise_the_limit(self, cents: int) -> None:
        budget = Budget.objects.get(pk=self.fleet.pk)
        actions.change_budget(budget_id=budget.pk, by=BY, limit_amount=budget.limit_amount + cents * CENT)

    @rule(zone=st.sampled_from(["America/New_York", "Europe/Berlin", "Pacific/Auckland", "UTC"]))
    def move_the_company(self, zone: str) -> None:
        actions.change_budget(budget_id=self.fleet.pk, by=BY, timezone=zone)

    @rule()
    def change_the_prices(self) -> None:
        scenes.price_list()

    @invariant()
    def windows_and_reservations_add_up(self) -> None:
        scenes.assert_books_are_right()

    @invariant()
    def hard_limits_hold(self) -> None:
        scenes.assert_never_above_limits()

    @invariant()
    def what_has_ended_stays_as_it_ended(self) -> None:
        for pk, state in Reservation.objects.filter(state__in=RESERVATION.final).values_list("pk", "state"):
            assert self.ended.setdefault(pk, state) == state

    @invariant()
    def a_cost_once_counted_stays(self) -> None:
        for pk, cost in TokenLedger.objects.values_list("pk", "cost_nano_usd"):
            assert self.costs.setdefault(pk, cost) == cost
        assert TokenLedger.objects.count() == len(self.costs)

    @invariant()
    def alerts_are_told_once_and_for_good(self) -> None:
        told = list(BudgetAlert.objects.values_list("window_id", "threshold"))
        assert len(told) == len(set(told))
        assert self.alerts <= set(told)
        self.alerts = set(told)

    @invariant()
    def the_fleet_spends_what_its_bots_spend(self) -> None:
        by_bot = TokenLedger.objects.values("identity_slug").annotate(cost=Sum("cost_nano_usd"))
        windows = BudgetWindow.objects.filter(budget=self.fleet)
        assert sum(row["cost"] for row in by_bot) == sum(window.posted for window in windows)


@pytest.mark.django_db
def test_the_books_are_right_whatever_happens():
    run_state_machine_as_test(
        Spending,
        settings=settings(
            max_examples=8,
            stateful_step_count=20,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
