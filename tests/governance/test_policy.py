"""Gate 1: the shipped policy by its cases, and every way of not getting a clean answer is a no."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from fleet.kernel.models import JournalEntry
from governance import actions, policies, queries
from governance.cedar import engine
from governance.models import PolicyVersion
from governance.policies import GateRequest, PolicyVerdict
from governance.states import Outcome
from identities.models import Identity, Person
from identities.permissions import Role
from identities.states import IdentityState, ToolDecision
from tests.factories.governance import PolicyVersionFactory
from tests.identities.races import race

BY = Actor.system("test")
ALLOW_ALL = "permit (principal, action, resource);"


def bot(state: str = "active") -> Identity:
    """A bot that is nowhere stored."""
    return Identity(slug="ada", name="Ada", department="Office", state=state)


def person(*roles: str, active: bool = True) -> Person:
    """A person who is nowhere stored."""
    return Person(pk=7, username="eva", roles=list(roles), is_active=active)


def talk(who: Person | None, to: Identity | None = None, **facts: Any) -> PolicyVerdict:
    """May this person talk to this bot?"""
    return policies.judge(
        GateRequest.admit(person=who, identity=to or bot(), **{"origin": "chat", "account": "telegram:ada", **facts})
    )


def use(grant: str | None, *, tool: str = "Read", target: str = "a.txt", by: Identity | None = None) -> PolicyVerdict:
    """May this bot use this tool?"""
    return policies.judge(GateRequest.use_tool(identity=by or bot(), tool=tool, target=target, grant=grant))


@pytest.mark.django_db
class TestTheShippedPolicy:
    @pytest.mark.parametrize("state", IdentityState.values)
    @pytest.mark.parametrize("role", [*Role.values, ""])
    def test_people_with_the_right_to_talk_may_talk_to_active_bots(self, role: str, state: str):
        verdict = talk(person(*([role] if role else [])), bot(state))

        allowed = role in ("operator", "approver", "admin") and state == "active"
        assert verdict.outcome == (Outcome.ALLOW if allowed else Outcome.REFUSE)
        assert verdict.reason_code == ("policy_allows" if allowed else "not_permitted")

    def test_somebody_switched_off_may_not(self):
        assert talk(person("admin", active=False)).outcome == Outcome.REFUSE

    def test_a_stranger_may_not_and_is_told_how_to_become_known(self):
        verdict = talk(None)
        assert (verdict.outcome, verdict.reason_code) == (Outcome.REFUSE, "unpaired")
        assert "/pair" in verdict.next_step

    @pytest.mark.parametrize(
        ("grant", "outcome", "code"),
        [
            (ToolDecision.ALLOW, Outcome.ALLOW, "policy_allows"),
            (ToolDecision.ASK, Outcome.REFUSE, "approval_unavailable"),
            (ToolDecision.DENY, Outcome.REFUSE, "tool_denied"),
            (None, Outcome.REFUSE, "tool_not_granted"),
        ],
    )
    def test_a_tool_is_used_only_with_an_allowing_grant(self, grant: str | None, outcome: str, code: str):
        verdict = use(grant)
        assert (verdict.outcome, verdict.reason_code) == (outcome, code)

    def test_a_bot_that_is_not_active_uses_no_tool(self):
        assert use(ToolDecision.ALLOW, by=bot("paused")).reason_code == "not_permitted"

    def test_a_refusal_says_what_was_refused_why_and_what_to_do(self):
        verdict = use(ToolDecision.ASK, tool="Bash")
        assert "Ada: Bash is refused: a person would have to approve it" in verdict.sentence
        assert verdict.next_step

    def test_the_verdict_names_the_rule_and_the_version_that_decided(self):
        version = actions.ensure_default_policy(by=BY)
        verdict = talk(person("operator"))
        assert verdict.rules == ("known-person-talks-to-active-bot",)
        assert verdict.policy_version == str(version.pk)

    def test_without_any_stored_policy_the_shipped_one_is_asked(self):
        assert talk(person("operator")).policy_version == "shipped"
        assert talk(None).outcome == Outcome.REFUSE

    @pytest.mark.parametrize("name", ["", 'x"]', "a::b", "é\n\t", "x" * 5000, "../../etc/passwd"])
    def test_odd_names_are_only_names(self, name: str):
        assert use(ToolDecision.ALLOW, tool=name, target=name).outcome == Outcome.ALLOW
        assert use(None, tool=name, target=name).outcome == Outcome.REFUSE
        assert talk(person("operator"), account=name, origin=name).outcome == Outcome.ALLOW

    def test_one_verdict_costs_one_query(self, django_assert_num_queries: Any):
        actions.ensure_default_policy(by=BY)
        eva, ada = person("operator"), bot()
        with django_assert_num_queries(1):
            talk(eva, ada)


def ask(text: str, **request: Any) -> engine.Ruling:
    """Put one admission to a policy text."""
    return engine.ask(
        text,
        **{
            "principal": "Person::7",
            "action": "Action::admit",
            "resource": "Bot::ada",
            "context": {"origin": {"kind": "chat", "account": "telegram:ada"}},
            "entities": [
                engine.entity("Person::7", active=True, roles=["operator"], permissions=["bot.talk"]),
                engine.entity("Bot::ada", state="active", department="Office"),
            ],
            **request,
        },
    )


class TestEveryDoubtIsANo:
    """Each of these is asked of a policy that permits everything."""

    def test_the_policy_does_permit_everything(self):
        assert ask(ALLOW_ALL).allowed

    @pytest.mark.parametrize(
        "forbid",
        [
            'forbid (principal, action, resource) when { context.taint == "untrusted" };',
            "forbid (principal, action, resource) when { resource.secret };",
            'forbid (principal, action, resource) when { principal.roles == 7 || principal.boss == "x" };',
        ],
        ids=["missing context", "missing attribute of the bot", "missing attribute of the person"],
    )
    def test_a_forbid_that_cannot_be_evaluated_does_not_turn_into_an_allow(self, forbid: str):
        ruling = ask(f"{ALLOW_ALL}\n{forbid}")
        assert not ruling.allowed
        assert ruling.trouble

    def test_a_forbid_that_overflows_does_not_turn_into_an_allow(self):
        overflow = "forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };"
        ruling = ask(f"{ALLOW_ALL}\n{overflow}")
        assert not ruling.allowed
        assert "could not be evaluated" in ruling.trouble

    @pytest.mark.parametrize(
        "request_",
        [
            {"action": "Action::fly"},
            {"principal": "Ghost::7"},
            {"resource": "Tool::Read"},
            {"principal": "Bot::ada", "entities": []},
            {"context": {}},
            {"context": {"origin": {"kind": "chat", "account": "x"}, "extra": True}},
            {"context": {"origin": "chat"}},
            {"entities": [engine.entity("Person::7", active="yes", roles=[], permissions=[])]},
            {"entities": [engine.entity("Person::7")]},
            {"entities": [{"nonsense": True}]},
        ],
        ids=[
            "unknown action",
            "unknown kind of principal",
            "wrong kind of resource",
            "principal of another action",
            "no context",
            "more context than the schema knows",
            "context of another shape",
            "attribute of another type",
            "missing attributes",
            "no entity at all",
        ],
    )
    def test_a_request_the_schema_does_not_know_is_refused(self, request_: dict[str, Any]):
        ruling = ask(ALLOW_ALL, **request_)
        assert not ruling.allowed
        assert ruling.trouble

    @pytest.mark.parametrize("text", ["permit (", "nonsense", "permit (principal, action, resource) when { 1 };"])
    def test_a_policy_that_cannot_be_read_refuses(self, text: str):
        assert not ask(text).allowed

    def test_an_empty_policy_refuses(self):
        assert ask("") == engine.Ruling(False)

    def test_a_thought_that_takes_too_long_refuses(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(engine, "LONGEST_SECONDS", -1.0)
        ruling = ask(ALLOW_ALL)
        assert not ruling.allowed
        assert "ms" in ruling.trouble

    def test_an_engine_that_breaks_refuses(self, monkeypatch: pytest.MonkeyPatch):
        def explode(*arguments: object) -> None:
            raise MemoryError("out of everything")

        monkeypatch.setattr(engine.cedarpy, "is_authorized", explode)
        assert "out of everything" in ask(ALLOW_ALL).trouble

    @pytest.mark.django_db
    def test_the_trouble_reaches_the_person_as_a_sentence(self):
        text = f"{ALLOW_ALL}\nforbid (principal, action, resource) when {{ 9223372036854775807 + 1 > 0 }};"
        actions.activate_policy(version=actions.write_policy(text=text, reason="a test", by=BY), reason="a test", by=BY)

        verdict = talk(person("admin"))

        assert (verdict.outcome, verdict.reason_code) == (Outcome.REFUSE, "policy_error")
        assert "a rule could not be evaluated" in verdict.sentence

    @pytest.mark.django_db
    def test_a_forbid_beats_every_permit_and_is_named(self):
        text = f'{ALLOW_ALL}\n@id("office-hours") forbid (principal, action == Action::"admit", resource);'
        actions.activate_policy(version=actions.write_policy(text=text, reason="a test", by=BY), reason="a test", by=BY)

        verdict = talk(person("admin"))

        assert (verdict.reason_code, verdict.rules) == ("policy_forbids", ("office-hours",))
        assert "office-hours" in verdict.sentence

    @settings(max_examples=200, deadline=None)
    @given(
        grant=st.sampled_from(["allow", "ask", "deny", "none"]) | st.text(max_size=10),
        tool=st.text(max_size=30),
        target=st.text(max_size=50),
        state=st.sampled_from(IdentityState.values),
    )
    def test_whatever_is_asked_only_an_allow_of_an_active_bot_is_allowed(
        self, grant: str, tool: str, target: str, state: str
    ):
        ruling = engine.ask(
            engine.DEFAULT_POLICY,
            principal="Bot::ada",
            action="Action::use_tool",
            resource=f"Tool::{tool}",
            context={"grant": grant, "target": target},
            entities=[engine.entity("Bot::ada", state=state, department=""), engine.entity(f"Tool::{tool}")],
        )
        assert ruling.allowed is (grant == "allow" and state == "active")


@pytest.mark.django_db
class TestVersions:
    def test_the_shipped_policy_agrees_with_the_schema(self):
        assert engine.problems(engine.DEFAULT_POLICY) == []

    def test_the_first_policy_is_the_shipped_one_and_stays(self):
        version = actions.ensure_default_policy(by=BY)
        assert version.active
        assert actions.ensure_default_policy(by=BY) == version
        assert JournalEntry.objects.count() == 2

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "empty"),
            ("permit (", ""),
            ("permit (principal, action, resource) when { context.moon };", ""),
            ('permit (principal, action == Action::"fly", resource);', ""),
            ("// " + "x" * 70_000, "longer than 64 KiB"),
        ],
        ids=["empty", "broken", "unknown fact", "unknown action", "too long"],
    )
    def test_a_policy_that_cannot_work_is_not_even_kept(self, text: str, why: str):
        with pytest.raises(Invalid, match=why or "cannot be used") as error:
            actions.write_policy(text=text, reason="a test", by=BY)
        assert error.value.code == "bad_policy"
        assert not PolicyVersion.objects.exists()

    def test_the_same_wording_is_one_version(self):
        first = actions.write_policy(text=ALLOW_ALL, reason="one", by=BY)
        assert actions.write_policy(text=ALLOW_ALL, reason="two", by=BY) == first

    def test_a_written_policy_is_not_asked_until_it_is_activated(self):
        actions.ensure_default_policy(by=BY)
        version = actions.write_policy(text=ALLOW_ALL, reason="a test", by=BY)
        assert talk(person()).outcome == Outcome.REFUSE

        actions.activate_policy(version=version, reason="a test", by=BY)

        assert talk(person()).outcome == Outcome.ALLOW
        assert queries.active_policy() == version

    def test_an_earlier_policy_can_be_activated_again(self):
        default = actions.ensure_default_policy(by=BY)
        version = actions.write_policy(text=ALLOW_ALL, reason="a test", by=BY)
        actions.activate_policy(version=version, reason="a test", by=BY)

        actions.activate_policy(version=default, reason="back", by=BY)

        assert talk(person()).outcome == Outcome.REFUSE
        assert PolicyVersion.objects.filter(active=True).count() == 1

    @pytest.mark.parametrize("change", [{"text": "permit(principal, action, resource);"}, {"sha256": "0" * 64}])
    def test_a_wording_never_changes(self, change: dict[str, str]):
        PolicyVersionFactory()
        with pytest.raises(DatabaseError, match="Cannot update"):
            PolicyVersion.objects.update(**change)

    def test_a_wording_is_never_removed(self):
        with pytest.raises(DatabaseError, match="Cannot delete"):
            PolicyVersionFactory().delete()

    def test_the_database_knows_one_active_policy(self):
        PolicyVersionFactory(active=True)
        with pytest.raises(IntegrityError, match="one_active_policy"):
            PolicyVersionFactory(active=True)


@pytest.mark.django_db(transaction=True)
def test_two_activations_at_once_leave_one_active_policy():
    versions = [PolicyVersionFactory() for _ in range(4)]

    race(*[lambda version=version: actions.activate_policy(version=version, reason="x", by=BY) for version in versions])

    assert PolicyVersion.objects.filter(active=True).count() == 1
