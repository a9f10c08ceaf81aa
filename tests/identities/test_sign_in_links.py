"""One-time sign-in links: looked at as often as you like, used once."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused
from fleet.kernel.models import JournalEntry
from identities import actions, queries
from identities.models import Person, SignInLink
from tests.factories.identities import PersonFactory
from tests.identities.races import race

BY = Actor.system("test")


@pytest.fixture
def eva(db: None) -> Person:
    """An operator."""
    return PersonFactory(username="eva")


@pytest.fixture
def token(eva: Person) -> str:
    """A fresh link of Eva's."""
    return actions.issue_sign_in_link(person=eva, by=BY)


class TestTheLink:
    def test_only_its_hash_is_kept(self, token: str):
        kept = str(list(SignInLink.objects.values())) + str(list(JournalEntry.objects.values()))
        assert token not in kept

    def test_it_signs_its_person_in_once(self, eva: Person, token: str):
        assert actions.use_sign_in_link(token=token) == eva

        with pytest.raises(Refused, match="does not open"):
            actions.use_sign_in_link(token=token)
        assert JournalEntry.objects.filter(event="identities.person.signed_in", actor_name="eva").count() == 1

    def test_it_opens_for_fifteen_minutes(self, eva: Person):
        with time_machine.travel(clock.now(), tick=False) as traveller:
            token = actions.issue_sign_in_link(person=eva, by=BY)
            traveller.shift(dt.timedelta(minutes=14, seconds=59))
            assert queries.find_sign_in_link(token) is not None
            traveller.shift(dt.timedelta(seconds=1))
            with pytest.raises(Refused):
                actions.use_sign_in_link(token=token)

    def test_it_does_not_open_for_somebody_switched_off(self, eva: Person, token: str):
        Person.objects.filter(pk=eva.pk).update(is_active=False)

        with pytest.raises(Refused):
            actions.use_sign_in_link(token=token)

    def test_somebody_switched_off_gets_none(self, eva: Person):
        eva.is_active = False
        with pytest.raises(Refused, match="switched off"):
            actions.issue_sign_in_link(person=eva, by=BY)

    @pytest.mark.parametrize("text", ["", "x", "\x00", "é" * 500])
    @pytest.mark.django_db
    def test_garbage_does_not_open(self, text: str):
        with pytest.raises(Refused):
            actions.use_sign_in_link(token=text)


@pytest.mark.django_db(transaction=True)
def test_two_who_use_the_same_link_at_the_same_moment_are_one_sign_in():
    token = actions.issue_sign_in_link(person=PersonFactory(), by=BY)

    results = race(*[lambda: actions.use_sign_in_link(token=token)] * 6)

    assert sum(isinstance(result, Person) for result in results) == 1


class TestThePage:
    def address(self, token: str) -> str:
        return reverse("identities:sign_in_link", kwargs={"token": token})

    def test_its_address_is_short(self, token: str):
        assert self.address(token) == f"/sign-in/{token}/"

    def test_looking_at_it_does_not_use_it_up(self, client: Client, token: str):
        for _ in range(3):
            assert client.get(self.address(token)).status_code == 200
            assert client.head(self.address(token)).status_code == 200

        assert SignInLink.objects.get().used_at is None
        assert "_auth_user_id" not in client.session

    def test_it_says_whom_it_signs_in(self, client: Client, token: str):
        assert "eva" in client.get(self.address(token)).content.decode()

    def test_pressing_the_button_signs_in_and_goes_home(self, client: Client, eva: Person, token: str):
        response = client.post(self.address(token))

        assert (response.status_code, response["Location"]) == (302, "/")
        assert client.session["_auth_user_id"] == str(eva.pk)

    def test_the_button_needs_its_own_page(self, eva: Person, token: str):
        response = Client(enforce_csrf_checks=True).post(self.address(token))

        assert response.status_code == 403
        assert SignInLink.objects.get().used_at is None

    def test_a_used_link_is_explained(self, client: Client, token: str):
        client.post(self.address(token))

        assert client.get(self.address(token)).status_code == 404
        again = Client().post(self.address(token))
        assert again.status_code == 403
        assert "signin_link" in again.content.decode()

    def test_no_browser_or_proxy_keeps_it_or_passes_it_on(self, client: Client, token: str):
        response = client.get(self.address(token))

        assert "no-store" in response["Cache-Control"]
        assert response["Referrer-Policy"] == "strict-origin"

    def test_no_other_method_is_answered(self, client: Client, token: str):
        assert client.put(self.address(token)).status_code == 405

    def test_a_session_from_before_does_not_survive_it(self, client: Client, token: str, settings: Any):
        client.force_login(PersonFactory(username="bob"))
        before = client.session.session_key

        client.post(self.address(token))

        assert client.session.session_key != before
