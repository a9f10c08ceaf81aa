"""Access tokens: shown once, found by hash, ended by expiry, by revocation or with their person."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import IntegrityError

from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, StateConflict
from fleet.kernel.models import JournalEntry
from identities import actions, queries
from identities.models import AccessToken, Person
from tests.factories.identities import AccessTokenFactory, PersonFactory

BY = Actor.system("test")
pytestmark = pytest.mark.django_db


@pytest.fixture
def eva() -> Person:
    """An operator."""
    return PersonFactory(username="eva")


class TestIssuing:
    def test_the_text_is_given_once_and_only_its_hash_is_kept(self, eva: Person):
        text, token = actions.issue_access_token(person=eva, name=" backup ", by=BY)

        assert text.startswith("flt_")
        assert len(text) > 40
        assert (token.name, token.prefix) == ("backup", text[:10])
        assert text not in str(vars(token)) + str(list(JournalEntry.objects.values()))

    def test_a_gateway_token_names_its_account(self, eva: Person):
        _, token = actions.issue_access_token(person=eva, name="hook", by=BY, gateway=True, gateway_account="web:ada")
        assert (token.gateway, token.gateway_account) == (True, "web:ada")

    @pytest.mark.parametrize(
        "wrong",
        [{"name": " "}, {"gateway": True}, {"gateway_account": "web:ada"}],
        ids=["no name", "no account", "no gateway"],
    )
    def test_a_token_that_makes_no_sense_is_not_issued(self, eva: Person, wrong: dict[str, Any]):
        with pytest.raises(Invalid):
            actions.issue_access_token(**{"person": eva, "name": "x", "by": BY, **wrong})
        assert not AccessToken.objects.exists()

    @pytest.mark.parametrize("wrong", [{"gateway": True}, {"gateway_account": "web:ada"}])
    def test_the_database_insists_on_it_too(self, wrong: dict[str, Any]):
        with pytest.raises(IntegrityError, match="gateway_token_names_its_account"):
            AccessTokenFactory(**wrong)


class TestFinding:
    def test_the_right_text_finds_the_token_and_its_person(self, eva: Person):
        text, token = actions.issue_access_token(person=eva, name="x", by=BY)

        found = queries.find_access_token(text)

        assert found == token
        assert found.person == eva

    @pytest.mark.parametrize(
        "state",
        [
            {"expires_at": clock.now() - dt.timedelta(seconds=1)},
            {"revoked_at": clock.now()},
            {"person__is_active": False},
        ],
        ids=["expired", "revoked", "person switched off"],
    )
    def test_a_token_that_is_over_is_not_found(self, state: dict[str, Any]):
        AccessTokenFactory(text="flt_over", **state)
        assert queries.find_access_token("flt_over") is None

    @pytest.mark.parametrize("text", ["", "flt_", "\x00", "é\ud800", "flt_" + "x" * 100_000, "' OR 1=1 --"])
    def test_garbage_is_not_found_and_breaks_nothing(self, text: str):
        AccessTokenFactory()
        assert queries.find_access_token(text) is None

    @pytest.mark.parametrize("text", ["flt_right", "flt_wrong", "flt_over", "", "\x00"])
    def test_the_work_is_one_query_whatever_is_wrong(self, text: str, django_assert_num_queries: Any):
        AccessTokenFactory(text="flt_right")
        AccessTokenFactory(text="flt_over", revoked_at=clock.now())

        with django_assert_num_queries(1):
            queries.find_access_token(text)


class TestRevoking:
    def test_a_revoked_token_opens_nothing_any_more(self, eva: Person):
        text, token = actions.issue_access_token(person=eva, name="x", by=BY)

        actions.revoke_access_token(token=token, by=BY)

        assert queries.find_access_token(text) is None
        assert JournalEntry.objects.filter(event="identities.access_token.revoked").exists()

    def test_a_token_is_revoked_once(self):
        token = AccessTokenFactory()
        actions.revoke_access_token(token=token, by=BY)

        with pytest.raises(StateConflict):
            actions.revoke_access_token(token=token, by=BY)


def test_its_use_is_noted_to_the_minute(django_assert_num_queries: Any):
    token = AccessTokenFactory()

    actions.note_token_used(token=token)
    first = AccessToken.objects.get().last_used_at
    actions.note_token_used(token=token)

    assert first is not None
    assert AccessToken.objects.get().last_used_at == first
