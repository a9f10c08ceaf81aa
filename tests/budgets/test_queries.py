"""The numbers people see: one definition each, and the same rows that decide."""

import datetime as dt

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from budgets import actions, queries
from budgets.models import BudgetWindow
from budgets.queries import SpentToday
from budgets.states import Metric, Mode, Period
from tests.budgets.scenes import ADA, BOB, BY, bot_budget, fleet_budget, metric_budget, reserve, settle, use, window
from tests.factories.budgets import CENT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("prices")]


@pytest.fixture(autouse=True)
def sunday():
    """All of it happens on one Sunday."""
    with time_machine.travel("2026-11-22T12:00:00Z", tick=False):
        yield


class TestLines:
    def test_a_line_shows_the_row_that_decides(self):
        budget = bot_budget("ada", cents=100, name="Ada, per day")
        use(reserve(), 5)
        (line,) = queries.budget_lines(ADA)
        decides = window(budget)
        assert (line.limit, line.posted, line.pending) == (decides.limit_amount, decides.posted, decides.pending)
        assert line.headroom == 75 * CENT
        assert line.percent == 5
        assert line.resets_at == dt.datetime(2026, 11, 23, tzinfo=dt.UTC)

    def test_it_says_so_in_a_sentence(self):
        bot_budget("ada", cents=100, name="Ada, per day", timezone="Europe/Berlin")
        use(reserve(), 5)
        assert queries.budget_sentence("ada") == (
            "Ada, per day: $0.05 of $1.00 used, $0.20 held by runs in progress, $0.75 left until 23 Nov 2026, 00:00 CET."
        )

    def test_looking_opens_no_window(self):
        fleet_budget()
        (line,) = queries.budget_lines(ADA)
        assert (line.opened, line.posted, line.headroom) == (False, 0, 100 * CENT)
        assert not BudgetWindow.objects.exists()

    def test_only_budgets_of_the_scopes_are_shown(self):
        fleet, ada, _ = fleet_budget(), bot_budget("ada"), bot_budget("bob")
        assert [line.budget_id for line in queries.budget_lines(ADA)] == [fleet.pk, ada.pk]

    def test_headroom_is_never_shown_below_zero(self):
        fleet_budget(cents=10)
        use(reserve(), 30)
        (line,) = queries.budget_lines(ADA)
        assert (line.headroom, line.overrun, line.percent) == (0, 20 * CENT, 300)

    def test_a_lifetime_budget_has_no_reset(self):
        fleet_budget(period=Period.LIFETIME)
        (line,) = queries.budget_lines(ADA)
        assert line.resets_at is None
        assert "left for good." in line.sentence

    def test_a_soft_budget_says_that_it_refuses_nothing(self):
        fleet_budget(mode=Mode.SOFT)
        assert "It refuses nothing." in queries.budget_sentence("ada")

    def test_other_metrics_are_told_in_their_own_unit(self):
        metric_budget(Metric.TOKENS, 1_000_000)
        use(reserve(), 5)
        assert "5 tokens of 1,000,000 tokens used" in queries.budget_sentence("ada")

    def test_without_budgets_nothing_limits(self):
        assert queries.budget_sentence("ada") == "No budget limits me."


class TestUsage:
    def test_a_bots_day_adds_up(self):
        use(reserve("a"), 5, "m1", execution=1, input_uncached=100, reasoning=2)
        use(reserve("b"), 7, "m1", execution=2)
        use(reserve("c", BOB), 9, "m1", execution=3)
        report = queries.usage_of("ada")
        assert (report.total.runs, report.total.tokens, report.total.cost_nano_usd) == (2, 112, 12 * CENT)
        assert queries.usage_sentence("ada") == "Today (UTC): 2 runs, 112 tokens, $0.12 at list price."

    def test_days_and_models_add_up_to_the_total(self):
        for day in (20, 21, 22):
            with time_machine.travel(f"2026-11-{day}T12:00:00Z", tick=False):
                use(reserve(f"{day}"), day, execution=day)
        report = queries.usage_of("ada", days=2)
        assert [(day.day, used.tokens) for day, used in report.days] == [(22, 22), (21, 21)]
        assert sum(used.cost_nano_usd for _, used in report.models) == report.total.cost_nano_usd == 43 * CENT

    def test_a_day_is_the_day_of_the_asked_timezone(self):
        with time_machine.travel("2026-11-21T23:30:00Z", tick=False):
            use(reserve(), 5)
        assert queries.usage_of("ada").total.tokens == 0
        assert queries.usage_of("ada", timezone="Europe/Berlin").total.tokens == 5

    def test_a_subscription_is_never_shown_as_a_free_lunch(self):
        use(reserve(), 5, billing="subscription")
        assert "$0.05 at list price ($0.00 billed per token)" in queries.usage_sentence("ada")

    def test_what_had_no_price_is_told(self):
        fleet_budget(cents=1000)
        use(reserve(), 1, model="gpt-oracle-9")
        assert "$1.00 of it for models without a price, counted as the dearest one" in queries.usage_sentence("ada")

    def test_nothing_used_is_said_plainly(self):
        assert queries.usage_sentence("ada") == "Today (UTC): I have used nothing."

    def test_spent_is_the_ledgers_sum_for_any_scope_with_or_without_a_budget(self):
        use(reserve("a", ADA | {"person": "7"}), 5, execution=1)
        use(reserve("b", BOB), 7, execution=2)
        assert queries.spent("fleet", "*") == 12 * CENT
        assert queries.spent("identity", "ada") == 5 * CENT
        assert queries.spent("person", "7", Period.MONTH) == 5 * CENT
        with time_machine.travel("2026-11-23T12:00:00Z", tick=False):
            assert queries.spent("fleet", "*") == 0
            assert queries.spent("fleet", "*", Period.MONTH) == 12 * CENT


class TestSpentToday:
    def test_a_bot_without_a_daily_budget_is_told_by_the_ledger(self):
        bot_budget("ada", metric=Metric.RUNS), bot_budget("ada", mode=Mode.SOFT), bot_budget("ada", period=Period.MONTH)
        use(reserve("a"), 5, execution=1)
        assert queries.spent_today(["ada", "bob"]) == {"ada": SpentToday(5 * CENT, None), "bob": SpentToday(0, None)}

    def test_the_tightest_daily_budget_decides(self):
        bot_budget("ada", cents=500), bot_budget("ada", cents=100)
        use(reserve("a"), 5, execution=1)
        assert queries.spent_today(["ada"]) == {"ada": SpentToday(5 * CENT, 100 * CENT)}

    def test_a_budget_nobody_has_used_yet_has_its_limit(self):
        bot_budget("ada", cents=100)
        assert queries.spent_today(["ada"]) == {"ada": SpentToday(0, 100 * CENT)}

    def test_another_day_is_not_today(self):
        bot_budget("ada", cents=100)
        use(reserve("a"), 5, execution=1)
        use(reserve("b", BOB), 7, execution=2)
        with time_machine.travel("2026-11-23T12:00:00Z", tick=False):
            spent = queries.spent_today(["ada", "bob"])
        assert [spent[slug].spent_nano_usd for slug in ("ada", "bob")] == [0, 0]

    def test_it_takes_three_queries_for_any_number_of_bots(self, django_assert_num_queries):
        for number in range(5):
            bot_budget(f"bot-{number}")
        with django_assert_num_queries(3):
            queries.spent_today([f"bot-{number}" for number in range(10)])


class TestOverview:
    def test_it_shows_the_fleets_money_at_one_moment(self):
        fleet_budget(cents=10_000)
        use(reserve("a"), 50, execution=1)
        vanished, ended = reserve("b"), reserve("c")
        actions.hold_uncertain(reservation_id=vanished.pk, by=BY)
        settle(ended)
        seen = queries.overview()
        assert (seen.today_nano_usd, seen.runs_holding, seen.runs_uncertain) == (50 * CENT, 1, 1)
        assert seen.uncertain_nano_usd == 25 * CENT
        assert seen.lines[0].posted == 50 * CENT
        assert seen.as_of == dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
        assert seen.prices == "test"

    def test_it_takes_eight_queries_however_many_budgets_there_are(self):
        for number in range(30):
            bot_budget(f"bot-{number}")
        with CaptureQueriesContext(connection) as captured:
            assert len(queries.overview().lines) == 30
        assert len(captured) == 8

    def test_it_shows_page_after_page(self):
        first, second = fleet_budget(), fleet_budget()
        assert [line.budget_id for line in queries.overview(after=first.pk).lines] == [second.pk]
