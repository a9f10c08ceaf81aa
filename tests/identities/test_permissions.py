"""Who may do what: the whole matrix, as one table."""

from __future__ import annotations

import pytest
from django.db import IntegrityError

from fleet.kernel.exceptions import Refused
from identities import policies
from identities.models import Person
from identities.permissions import MATRIX, Permission, Role
from tests.factories.identities import PersonFactory

#                          viewer operator approver admin
TABLE = {
    "public":           "    yes    yes    yes    yes",
    "signed_in":        "    yes    yes    yes    yes",
    "fleet.view":       "    yes    yes    yes    yes",
    "bot.talk":         "     -     yes    yes    yes",
    "turn.stop":        "     -     yes     -     yes",
    "delivery.send":    "     -     yes     -     yes",
    "fleet.stop":       "     -     yes    yes    yes",
    "fleet.resume":     "     -     yes     -     yes",
    "login.reset":      "     -     yes     -     yes",
    "worker.steer":     "     -     yes     -     yes",
    "bot.edit":         "     -      -      -     yes",
    "gateway.edit":     "     -      -      -     yes",
    "budget.edit":      "     -      -      -     yes",
    "approval.decide":  "     -      -     yes    yes",
    "people.edit":      "     -      -      -     yes",
    "records.edit":     "     -      -      -     yes",
}  # fmt: skip
CELLS = [
    (Role(role), Permission(permission), cell == "yes")
    for permission, row in TABLE.items()
    for role, cell in zip(("viewer", "operator", "approver", "admin"), row.split(), strict=True)
]


def test_the_table_knows_every_permission_and_every_role():
    assert set(TABLE) == set(Permission.values)
    assert set(MATRIX) == set(Role)


@pytest.mark.parametrize(("role", "permission", "allowed"), CELLS)
def test_a_role_gives_exactly_what_the_table_says(role: Role, permission: Permission, allowed: bool):
    person = Person(username="eva", roles=[role])

    assert policies.can(person, permission) is allowed
    if allowed:
        policies.check_can(person, permission)
    else:
        with pytest.raises(Refused, match="no role of this person has it") as refusal:
            policies.check_can(person, permission)
        assert refusal.value.code == "no_right"


def test_several_roles_add_up():
    person = Person(username="eva", roles=[Role.OPERATOR, Role.APPROVER])

    assert policies.can(person, Permission.TURN_STOP)
    assert policies.can(person, Permission.APPROVAL_DECIDE)
    assert not policies.can(person, Permission.PEOPLE_EDIT)


def test_nobody_without_a_role_may_do_anything():
    assert Person(username="eva", roles=[]).permissions == frozenset()


@pytest.mark.parametrize("permission", Permission)
def test_a_switched_off_account_may_do_nothing_whatever_its_roles(permission: Permission):
    person = Person(username="eva", roles=list(Role), is_active=False)

    with pytest.raises(Refused, match="switched off"):
        policies.check_can(person, permission)


@pytest.mark.parametrize(
    ("roles", "staff", "superuser"), [([], False, False), (["viewer"], True, False), (["admin"], True, True)]
)
def test_django_s_own_questions_are_answered_by_the_matrix(roles: list[str], staff: bool, superuser: bool):
    person = Person(username="eva", roles=roles)

    assert (person.is_staff, person.has_module_perms("identities")) == (staff, staff)
    assert (person.is_superuser, person.has_perm("identities.change_person")) == (superuser, superuser)


@pytest.mark.django_db
def test_the_database_knows_no_other_roles():
    with pytest.raises(IntegrityError, match="person_has_known_roles"):
        PersonFactory(roles=["emperor"])


@pytest.mark.django_db
def test_django_s_createsuperuser_makes_an_administrator():
    person = Person.objects.create_superuser("root", "root@example.org", "a long enough password")

    assert person.roles == [Role.ADMIN]
    assert person.check_password("a long enough password")
