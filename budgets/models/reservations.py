"""Holds on budgets: separate, leased rows, never added onto what was spent."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from budgets.models.budgets import Budget, BudgetWindow
from budgets.states import RESERVATION, ReservationState
from fleet.kernel.transitions import steps_trigger


class Reservation(models.Model):
    """What one run may use, in slices. `attempt` is the caller's key: the same attempt never holds twice."""

    attempt = models.CharField(max_length=120, unique=True)
    state = models.CharField(max_length=12, choices=ReservationState.choices, default=ReservationState.HELD)
    scopes = models.JSONField(help_text="{kind: id}")
    model = models.CharField(max_length=120)
    execution_id = models.BigIntegerField(null=True, blank=True, help_text="of the first report")
    cost_nano_usd = models.BigIntegerField(default=0, help_text="posted so far, at list price")
    overran = models.BooleanField(default=False, help_text="more was used than was held")
    lease_until = models.DateTimeField()
    uncertain_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["lease_until"], condition=Q(state="held"), name="reservation_leased"),
            models.Index(fields=["uncertain_until"], condition=Q(state="uncertain"), name="reservation_uncertain"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(cost_nano_usd__gte=0), name="reservation_cost_not_negative"),
            models.CheckConstraint(
                condition=Q(state__in=RESERVATION.final, ended_at__isnull=False)
                | Q(state__in=RESERVATION.live, ended_at__isnull=True),
                name="reservation_ended_when_final",
            ),
            models.CheckConstraint(
                condition=~Q(state=ReservationState.UNCERTAIN) | Q(uncertain_until__isnull=False),
                name="reservation_uncertain_is_bounded",
            ),
        ]
        triggers = [steps_trigger(RESERVATION)]

    def __str__(self) -> str:
        return f"reservation {self.pk} of {self.attempt}"

    @property
    def is_live(self) -> bool:
        """Return whether it can still hold something."""
        return self.state in RESERVATION.live


class ReservationLeg(models.Model):
    """A reservation's hold on one budget; it is in one window at a time. Amounts are in the unit of the budget's metric.

    `granted` is the size of the slice in use, `held` what is left of it; `overrun` what was used without being held.
    """

    reservation = models.ForeignKey(Reservation, on_delete=models.PROTECT, related_name="legs")
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="legs")
    window = models.ForeignKey(BudgetWindow, on_delete=models.PROTECT, related_name="legs")
    granted = models.BigIntegerField()
    held = models.BigIntegerField()
    overrun = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["reservation", "budget"], name="one_leg_per_budget"),
            models.CheckConstraint(condition=Q(held__gte=0, overrun__gte=0), name="leg_not_negative"),
            models.CheckConstraint(condition=Q(held__lte=models.F("granted")), name="leg_held_within_grant"),
        ]

    def __str__(self) -> str:
        return f"leg of reservation {self.reservation_id} on budget {self.budget_id}"
