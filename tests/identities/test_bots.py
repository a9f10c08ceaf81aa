"""Bots: created as drafts, changed with a journal row, managed as a strict tree."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, NotFound, Refused, StateConflict
from fleet.kernel.models import JournalEntry
from identities import actions, policies, queries
from identities.models import Identity, ToolGrant
from identities.states import IdentityState, ToolDecision
from tests.factories.identities import IdentityFactory, PersonFactory, ToolGrantFactory
from tests.identities.races import race

BY = Actor.system("test")
pytestmark = pytest.mark.django_db


class TestCreating:
    def test_a_new_bot_is_a_draft(self):
        bot = actions.create_identity(slug="ada", name="Ada", title="Clerk", by=BY)

        assert (bot.state, bot.title, bot.provider_chain) == ("draft", "Clerk", ["claude"])
        assert JournalEntry.objects.get().details == {"slug": "ada", "name": "Ada"}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"slug": "Ada"},
            {"slug": "../ada"},
            {"slug": "a b"},
            {"slug": ""},
            {"slug": "x" * 41},
            {"slug": "taken"},
            {"name": ""},
            {"concurrency": 0},
            {"max_turns": 0},
            {"effort": "heroic"},
        ],
        ids=str,
    )
    def test_what_cannot_be_a_bot_is_explained_and_not_stored(self, wrong: dict[str, Any]):
        IdentityFactory(slug="taken")

        with pytest.raises(Invalid, match="cannot be stored"):
            actions.create_identity(**{"slug": "ada", "name": "Ada", "by": BY, **wrong})

        assert Identity.objects.count() == 1

    @pytest.mark.parametrize("slug", ["Ada", "../ada", ".ada", "a/b", "ada\n", ""])
    def test_the_database_takes_only_slugs_that_are_folder_names(self, slug: str):
        with pytest.raises(IntegrityError, match="identity_slug_is_a_folder_name"):
            IdentityFactory(slug=slug, name="x")


class TestChanging:
    def test_a_change_is_journalled_with_before_and_after(self):
        boss, bot = IdentityFactory(slug="ada", name="Ada"), IdentityFactory()

        actions.update_identity(identity=bot, by=BY, title="Chief", manager=boss, concurrency=2)

        stored = Identity.objects.get(pk=bot.pk)
        assert (stored.title, stored.manager, stored.concurrency) == ("Chief", boss, 2)
        assert JournalEntry.objects.get().details["changes"] == {
            "title": ["Clerk", "Chief"],
            "manager": [None, "Ada (ada)"],
            "concurrency": [4, 2],
        }

    def test_a_change_that_cannot_be_is_not_made(self):
        bot = IdentityFactory()

        with pytest.raises(Invalid):
            actions.update_identity(identity=bot, by=BY, concurrency=0)

        assert Identity.objects.get(pk=bot.pk).concurrency == 4


class TestTheTreeOfManagers:
    def test_nobody_manages_itself_not_even_over_three_others(self):
        ada = IdentityFactory(slug="ada", name="Ada")
        bob = IdentityFactory(manager=ada)
        cleo = IdentityFactory(manager=bob)

        with pytest.raises(Invalid, match="Ada cannot report to") as refusal:
            actions.update_identity(identity=ada, by=BY, manager=cleo)

        assert refusal.value.code == "manager_ring"

    def test_the_database_refuses_rings_of_any_length(self):
        ada = IdentityFactory()
        bob = IdentityFactory(manager=ada)

        with pytest.raises(IntegrityError, match="identity_manager_tree"):
            Identity.objects.filter(pk=ada.pk).update(manager=bob)

    def test_the_database_refuses_the_shortest_ring(self):
        ada = IdentityFactory()

        with pytest.raises(IntegrityError, match=r"identity_manager_tree|identity_not_its_own_manager"):
            Identity.objects.filter(pk=ada.pk).update(manager=ada)

    def test_a_manager_cannot_be_removed_while_somebody_reports_to_it(self):
        ada = IdentityFactory()
        IdentityFactory(manager=ada)

        with pytest.raises(IntegrityError), connection.cursor() as cursor:
            cursor.execute("DELETE FROM identities_identity WHERE id = %s", [ada.pk])
            connection.check_constraints()


@pytest.mark.django_db(transaction=True)
def test_two_moves_that_would_close_a_ring_only_together_do_not_both_pass():
    ada, bob = IdentityFactory(), IdentityFactory()

    results = race(
        lambda: actions.update_identity(identity=ada, by=BY, manager=bob),
        lambda: actions.update_identity(identity=bob, by=BY, manager=ada),
    )

    assert sorted(isinstance(result, Invalid) for result in results) == [False, True]


class TestWorkingLife:
    def test_from_draft_to_retirement(self):
        bot = actions.create_identity(slug="ada", name="Ada", by=BY)

        for step in (actions.activate, actions.pause, actions.resume, actions.retire):
            step(identity=bot, by=BY)

        assert Identity.objects.get().state == "retired"
        assert list(JournalEntry.objects.order_by("pk").values_list("event", flat=True))[1:] == [
            f"identities.identity.{verb}" for verb in ("activated", "paused", "resumed", "retired")
        ]

    def test_a_retired_bot_does_not_come_back(self):
        bot = IdentityFactory(state=IdentityState.RETIRED)
        with pytest.raises(StateConflict):
            actions.resume(identity=bot, by=BY)

    @pytest.mark.parametrize(
        ("state", "why"),
        [("draft", "still being written"), ("paused", "is paused"), ("retired", "is retired")],
    )
    def test_only_an_active_bot_takes_messages(self, state: str, why: str):
        with pytest.raises(Refused, match=why) as refusal:
            policies.check_takes_messages(IdentityFactory(state=state))
        assert refusal.value.code == f"bot_{state}"

    def test_an_active_bot_takes_messages(self):
        policies.check_takes_messages(IdentityFactory())


class TestFinding:
    def test_a_bot_is_found_by_its_slug(self):
        ada = IdentityFactory(slug="ada")
        assert queries.get_identity("ada") == ada

    @pytest.mark.parametrize("slug", ["bob", "", "x" * 10_000, "ADA"])
    def test_an_unknown_bot_is_explained(self, slug: str):
        IdentityFactory(slug="ada")
        with pytest.raises(NotFound, match="There is no bot called") as error:
            queries.get_identity(slug)
        assert error.value.code == "unknown_bot"
        assert len(error.value.sentence) < 250

    def test_the_list_leaves_out_who_is_retired_and_costs_one_query(self, django_assert_num_queries: Any):
        IdentityFactory(state=IdentityState.RETIRED)
        boss = IdentityFactory(owner=PersonFactory())
        IdentityFactory(manager=boss)

        with django_assert_num_queries(1):
            names = [(bot.name, bot.owner, bot.manager) for bot in queries.identities()]
        assert len(names) == 2


class TestGrants:
    def test_the_whole_set_is_replaced_and_journalled(self):
        bot = ToolGrantFactory(pattern="Read").identity

        actions.set_grants(identity=bot, grants={"Bash(git *)": "ask", "Write": ToolDecision.ALLOW}, by=BY)

        assert dict(bot.grants.values_list("pattern", "decision")) == {"Bash(git *)": "ask", "Write": "allow"}
        assert JournalEntry.objects.get().details["before"] == {"Read": "allow"}

    def test_the_same_set_again_is_no_change(self):
        bot = ToolGrantFactory(pattern="Read").identity
        actions.set_grants(identity=bot, grants={"Read": "allow"}, by=BY)
        assert not JournalEntry.objects.exists()

    @pytest.mark.parametrize("pattern", ["", "x" * 161])
    def test_a_pattern_that_cannot_be_stored_leaves_everything_as_it_was(self, pattern: str):
        bot = ToolGrantFactory(pattern="Read").identity
        with pytest.raises(Invalid):
            actions.set_grants(identity=bot, grants={pattern: "allow"}, by=BY)
        assert [grant.pattern for grant in ToolGrant.objects.all()] == ["Read"]


class TestToolDecision:
    """The strictest matching grant decides; what no grant matches is denied by the policy."""

    @pytest.mark.parametrize(
        ("grants", "tool", "target", "expected"),
        [
            ({}, "Read", "", None),
            ({"Read": "allow"}, "Read", "a.txt", "allow"),
            ({"Read": "allow"}, "Write", "a.txt", None),
            ({"Read": "allow"}, "ReadSecrets", "", None),
            ({"mcp__crm__*": "allow"}, "mcp__crm__search", "", "allow"),
            ({"mcp__crm__*": "allow"}, "mcp__bank__pay", "", None),
            ({"mcp__crm__*": "allow", "mcp__crm__delete": "deny"}, "mcp__crm__delete", "", "deny"),
            ({"*": "ask", "Read": "allow"}, "Read", "", "ask"),
            ({"Bash": "allow"}, "Bash", "ls | wc", "allow"),
            ({"Bash(git *)": "allow"}, "Bash", "git log", "allow"),
            ({"Bash(git *)": "allow"}, "Bash", "rm -rf .", None),
            ({"Bash(git *)": "allow"}, "Bash", "git log; rm -rf .", None),
            ({"Bash(git *)": "allow"}, "Bash", "git log && rm -rf .", None),
            ({"Bash(git *)": "allow"}, "Bash", "git log > /etc/passwd", None),
            ({"Bash(git *)": "allow"}, "Bash", "git log $(rm -rf .)", None),
            ({"Bash(git *)": "allow"}, "Bash", "git log `rm -rf .`", None),
            ({"Bash(git *)": "allow"}, "Bash", "git log\nrm -rf .", None),
            ({"Bash": "allow", "Bash(rm *)": "deny"}, "Bash", "ls", "allow"),
            ({"Bash": "allow", "Bash(rm *)": "deny"}, "Bash", "rm x", "deny"),
            ({"Bash": "allow", "Bash(rm *)": "deny"}, "Bash", "ls; rm x", "deny"),
            ({"Read(docs/*)": "allow"}, "Read", "docs/a.md", "allow"),
            ({"Read(docs/*)": "allow"}, "Read", "docs/../secret", None),
            ({"Read(docs/*)": "allow"}, "Read", "secret", None),
            ({"WebFetch(https://example.org/*)": "allow"}, "WebFetch", "https://example.org/a", "allow"),
            ({"WebFetch(https://example.org/*)": "allow"}, "WebFetch", "https://evil.org/", None),
            ({"Task": "allow"}, "Agent", "a job", "allow"),
            ({"Agent": "allow", "Task": "deny"}, "Agent", "a job", "deny"),
        ],
    )
    def test_matching(self, grants: dict[str, str], tool: str, target: str, expected: str | None):
        rows = [ToolGrant(pattern=pattern, decision=decision) for pattern, decision in grants.items()]
        assert policies.tool_decision(rows, tool=tool, target=target) == expected
