"""Making and changing budgets."""

import pytest

from budgets import actions
from budgets.models import Budget
from budgets.states import Metric, Mode, Period, Scope
from fleet.kernel.exceptions import Invalid, NotFound
from fleet.kernel.models import JournalEntry
from identities import actions as identity_actions
from identities.states import IdentityState
from tests.budgets.scenes import BY, fleet_budget, reserve, window
from tests.factories.budgets import CENT
from tests.factories.identities import IdentityFactory

pytestmark = pytest.mark.django_db
USD = 100 * CENT


class TestDefaults:
    def test_the_fleet_and_every_bot_get_a_hard_daily_budget(self):
        IdentityFactory(slug="ada", name="Ada", timezone="Europe/Berlin")
        actions.ensure_default_budgets(by=BY)
        fleet, ada = Budget.objects.all()
        assert (fleet.name, fleet.limit_amount, fleet.mode, fleet.period) == ("Fleet, per day", 50 * USD, "hard", "day")
        assert (ada.name, ada.scope_id, ada.limit_amount, ada.timezone) == (
            "Ada, per day",
            "ada",
            10 * USD,
            "Europe/Berlin",
        )

    def test_asking_again_makes_nothing_and_changes_nothing(self):
        IdentityFactory(slug="ada")
        for budget in actions.ensure_default_budgets(by=BY):
            actions.change_budget(budget_id=budget.pk, by=BY, limit_amount=CENT, active=False)
        assert actions.ensure_default_budgets(by=BY) == []
        assert not Budget.objects.exclude(limit_amount=CENT, active=False).exists()

    def test_a_retired_bot_needs_none(self):
        IdentityFactory(state=IdentityState.RETIRED)
        assert [budget.scope_kind for budget in actions.ensure_default_budgets(by=BY)] == [Scope.FLEET]

    def test_a_bot_born_later_is_limited_from_its_first_run_on(self):
        actions.ensure_default_budgets(by=BY)
        identity_actions.create_identity(slug="cleo", name="Cleo", by=BY)
        assert Budget.objects.get(scope_id="cleo").limit_amount == 10 * USD

    def test_a_bot_born_into_a_fleet_without_budgets_gets_none(self):
        identity_actions.create_identity(slug="cleo", name="Cleo", by=BY)
        assert not Budget.objects.exists()


class TestMaking:
    def test_a_budget_is_journaled_by_whoever_made_it(self):
        actions.create_budget(by=BY, name="Runs", scope_kind=Scope.FLEET, metric=Metric.RUNS, limit_amount=5)
        entry = JournalEntry.objects.get(event="budgets.budget.created")
        assert (entry.actor_name, entry.details["limit_amount"]) == ("test", 5)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"timezone": "Mars/Olympus"},
            {"limit_amount": -1},
            {"period": Period.ROLLING, "hours": 0},
            {"period": Period.WEEK, "anchor": 8},
            {"scope_kind": Scope.IDENTITY, "scope_id": "*"},
            {"scope_kind": "galaxy"},
            {"thresholds": [0]},
            {"name": ""},
        ],
        ids=lambda wrong: "-".join(wrong),
    )
    def test_what_cannot_be_is_refused_with_a_sentence(self, wrong):
        fields = {"name": "Budget", "scope_kind": Scope.FLEET, "limit_amount": 1} | wrong
        with pytest.raises(Invalid, match="cannot be stored"):
            actions.create_budget(by=BY, **fields)
        assert not Budget.objects.exists()


class TestChanging:
    def test_a_new_limit_counts_at_once(self, prices):
        budget = fleet_budget(cents=25)
        reserve("a")
        actions.change_budget(budget_id=budget.pk, by=BY, limit_amount=50 * CENT)
        reserve("b")
        assert window(budget).pending == 50 * CENT

    def test_old_and_new_are_in_the_journal(self):
        budget = fleet_budget(cents=25)
        actions.change_budget(budget_id=budget.pk, by=BY, mode=Mode.SOFT)
        entry = JournalEntry.objects.get(event="budgets.budget.changed")
        assert (entry.details["old"], entry.details["new"]) == ({"mode": "hard"}, {"mode": "soft"})

    @pytest.mark.parametrize("field", ["scope_id", "metric", "period"])
    def test_another_scope_metric_or_period_is_another_budget(self, field):
        with pytest.raises(Invalid, match=field):
            actions.change_budget(budget_id=fleet_budget().pk, by=BY, **{field: "x"})

    def test_a_wrong_change_changes_nothing(self):
        budget = fleet_budget()
        with pytest.raises(Invalid):
            actions.change_budget(budget_id=budget.pk, by=BY, timezone="Mars/Olympus")
        budget.refresh_from_db()
        assert budget.timezone == "UTC"

    def test_an_unknown_budget_is_not_found(self):
        with pytest.raises(NotFound):
            actions.change_budget(budget_id=404, by=BY, limit_amount=1)
