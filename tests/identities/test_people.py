"""People: coming in, changing roles, and the last administrator who cannot leave."""

from __future__ import annotations

import pytest
from django.db import IntegrityError

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, NotFound, Refused, StateConflict
from fleet.kernel.models import JournalEntry
from identities import actions, queries
from identities.models import Person
from identities.permissions import Role
from tests.factories.identities import ChatAccountFactory, PersonFactory
from tests.identities.races import race

BY = Actor.system("test")


@pytest.mark.django_db
class TestComingIn:
    def test_a_new_person_has_roles_and_no_password(self):
        person = actions.create_person(username="eva", roles=[Role.OPERATOR], email="eva@example.org", by=BY)

        assert person.roles == ["operator"]
        assert not person.has_usable_password()
        assert JournalEntry.objects.get().event == "identities.person.created"

    @pytest.mark.parametrize("name", ["", "a b", "x" * 200, "eva"], ids=["empty", "space", "long", "taken"])
    def test_a_name_that_cannot_be_used_is_explained(self, name: str):
        PersonFactory(username="eva")

        with pytest.raises(Invalid, match="cannot be created"):
            actions.create_person(username=name, roles=[], by=BY)

    def test_the_first_person_is_an_administrator_called_operator(self):
        person = actions.ensure_first_person(by=BY)

        assert (person.username, person.roles) == ("operator", ["admin"])
        assert actions.ensure_first_person(by=BY) == person
        assert Person.objects.count() == 1

    def test_a_house_with_people_but_no_administrator_is_told_so(self):
        PersonFactory(roles=[Role.VIEWER])

        with pytest.raises(StateConflict, match="no administrator"):
            actions.ensure_first_person(by=BY)


@pytest.mark.django_db
class TestFinding:
    def test_by_name(self):
        eva = PersonFactory(username="eva")
        assert queries.get_person("eva") == eva
        with pytest.raises(NotFound, match="nobody called bob"):
            queries.get_person("bob")

    def test_by_chat_account(self):
        account = ChatAccountFactory(platform="telegram", external_id="501")
        assert queries.find_person("telegram", "501") == account.person
        assert queries.find_person("telegram", "502") is None

    def test_one_account_is_never_two_people(self):
        ChatAccountFactory(platform="telegram", external_id="501")
        with pytest.raises(IntegrityError, match="one_person_per_account"):
            ChatAccountFactory(platform="telegram", external_id="501")


@pytest.mark.django_db
class TestRoles:
    def test_a_change_of_roles_is_journalled_with_before_and_after(self):
        person = PersonFactory(roles=[Role.VIEWER])

        actions.set_roles(person=person, roles=[Role.OPERATOR], by=BY)

        assert Person.objects.get(pk=person.pk).roles == ["operator"]
        assert JournalEntry.objects.get().details == {"before": ["viewer"], "roles": ["operator"]}

    def test_a_switched_off_person_can_be_switched_on_again(self):
        PersonFactory(roles=[Role.ADMIN])
        person = PersonFactory()

        actions.set_active(person=person, active=False, by=BY)
        assert Person.objects.get(pk=person.pk).permissions == frozenset()

        actions.set_active(person=person, active=True, by=BY)
        assert Person.objects.get(pk=person.pk).permissions

    def test_the_last_administrator_stays_one(self):
        admin = PersonFactory(roles=[Role.ADMIN])

        with pytest.raises(Refused, match="stays an administrator"):
            actions.set_roles(person=admin, roles=[Role.VIEWER], by=BY)
        with pytest.raises(Refused, match="stays an administrator"):
            actions.set_active(person=admin, active=False, by=BY)


@pytest.mark.django_db(transaction=True)
def test_two_administrators_cannot_remove_each_other_at_the_same_time():
    one, two = PersonFactory(roles=[Role.ADMIN]), PersonFactory(roles=[Role.ADMIN])

    results = race(
        lambda: actions.set_roles(person=one, roles=[Role.VIEWER], by=BY),
        lambda: actions.set_active(person=two, active=False, by=BY),
    )

    assert sorted(isinstance(result, Refused) for result in results) == [False, True]
    assert queries.first_admin() is not None
