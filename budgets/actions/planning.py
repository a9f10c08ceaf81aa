"""Making and changing budgets."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from budgets import events
from budgets.models import Budget, BudgetWindow
from budgets.states import WHOLE_FLEET, Scope
from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, NotFound
from identities.models import Identity
from identities.states import IdentityState

USD = 1_000_000_000
FLEET_DAY_NANO_USD = 50 * USD
IDENTITY_DAY_NANO_USD = 10 * USD

CHANGEABLE = frozenset({"name", "limit_amount", "mode", "timezone", "anchor", "hours", "thresholds", "active"})
"""What may change on a budget; another scope, metric or period is another budget."""


@transaction.atomic
def create_budget(*, by: Actor, **fields: Any) -> Budget:
    """Create a budget from the fields of the model; raises Invalid with a sentence for what cannot be."""
    budget = Budget(**fields)
    _check(budget)
    budget.save(force_insert=True)
    journal.record(
        events.BUDGET_CREATED,
        by=by,
        subject=("budget", budget.pk),
        **{
            name: getattr(budget, name) for name in ("name", "scope_kind", "scope_id", "metric", "limit_amount", "mode")
        },
    )
    return budget


@transaction.atomic
def change_budget(*, budget_id: int, by: Actor, **changes: Any) -> Budget:
    """Change a budget. A limit applies at once and never alters what was posted; a timezone applies from the next window."""
    budget = Budget.objects.select_for_update(no_key=True).filter(pk=budget_id).first()
    if budget is None:
        raise NotFound("There is no such budget.", next_step="Choose one from the list.")
    if unknown := changes.keys() - CHANGEABLE:
        raise Invalid(f"A budget's {', '.join(sorted(unknown))} cannot be changed.", next_step="Make another budget.")
    old = {name: getattr(budget, name) for name in changes}
    for name, value in changes.items():
        setattr(budget, name, value)
    _check(budget)
    budget.save(update_fields=list(changes))
    open_ones = BudgetWindow.objects.filter(budget=budget, ends_at__gt=clock.now())
    open_ones.update(limit_amount=budget.limit_amount)
    journal.record(events.BUDGET_CHANGED, by=by, subject=("budget", budget.pk), old=old, new=changes)
    return budget


def _check(budget: Budget) -> None:
    try:
        budget.full_clean()
    except ValidationError as error:
        raise Invalid(
            "This budget cannot be stored like this.",
            why=" ".join(error.messages),
            next_step="Correct it and save again.",
        ) from error


@transaction.atomic
def ensure_default_budgets(*, by: Actor) -> list[Budget]:
    """Give the fleet and every bot a daily budget unless they have one already; return the new ones.

    A budget that was changed or switched off is left as it is.
    """
    made = [] if _has_any(Scope.FLEET, WHOLE_FLEET) else [_daily(Scope.FLEET, WHOLE_FLEET, "Fleet", "UTC", by)]
    limited = Budget.objects.filter(scope_kind=Scope.IDENTITY).values("scope_id")
    for bot in Identity.objects.exclude(state=IdentityState.RETIRED).exclude(slug__in=limited):
        made.append(_daily(Scope.IDENTITY, bot.slug, bot.name, bot.timezone, by))
    return made


def ensure_identity_budget(*, slug: str, by: Actor) -> Budget | None:
    """Give a new bot its daily budget, in a fleet that has one; None where there is nothing to do."""
    if not _has_any(Scope.FLEET, WHOLE_FLEET) or _has_any(Scope.IDENTITY, slug):
        return None
    bot = Identity.objects.get(slug=slug)
    return _daily(Scope.IDENTITY, bot.slug, bot.name, bot.timezone, by)


def _has_any(kind: Scope, scope_id: str) -> bool:
    return Budget.objects.filter(scope_kind=kind, scope_id=scope_id).exists()


def _daily(kind: Scope, scope_id: str, name: str, timezone: str, by: Actor) -> Budget:
    limit = FLEET_DAY_NANO_USD if kind == Scope.FLEET else IDENTITY_DAY_NANO_USD
    return create_budget(
        name=f"{name}, per day", scope_kind=kind, scope_id=scope_id, limit_amount=limit, timezone=timezone, by=by
    )
