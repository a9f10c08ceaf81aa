"""Who may change budgets."""

from __future__ import annotations

from identities.models import Person
from identities.permissions import MATRIX, Permission

SHOWN = 3


def who_can_raise() -> str:
    """Return the names of people who may change budgets, for a sentence: `alice, bob`; `an administrator` when there is none."""
    roles = [role.value for role, permissions in MATRIX.items() if Permission.BUDGET_EDIT in permissions]
    people = Person.objects.filter(is_active=True, roles__overlap=roles).order_by("pk")
    names = list(people.values_list("username", flat=True)[:SHOWN])
    return " or ".join(names) if names else "An administrator"
