"""Budgets, the windows they are spent in, and alerts. Amounts are in the unit of the budget's metric."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import cache
from zoneinfo import available_timezones

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, BigIntegerRangeField, DateTimeRangeField, RangeBoundary
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Now

from budgets.models.periods import bounds
from budgets.states import WHOLE_FLEET, Metric, Mode, Period, Scope


def default_thresholds() -> list[int]:
    """Return the percentages at which a new budget alerts."""
    return [50, 80, 95, 100]


@cache
def _timezones() -> frozenset[str]:
    """Return the names of all zones: finding them takes a walk over hundreds of files."""
    return frozenset(available_timezones())


def check_timezone(name: str) -> None:
    """Raise ValidationError for a name that is no IANA timezone."""
    if name not in _timezones():
        raise ValidationError(f"There is no timezone “{name}”; use a name such as Europe/Berlin.")


class Budget(models.Model):
    """A limit on what a scope may use in a period. It is switched off, never deleted: its windows are history."""

    name = models.CharField(max_length=120)
    scope_kind = models.CharField(max_length=20, choices=Scope.choices)
    scope_id = models.CharField(max_length=80, default=WHOLE_FLEET)
    metric = models.CharField(max_length=20, choices=Metric.choices, default=Metric.IMPUTED)
    limit_amount = models.BigIntegerField(help_text="nano-dollars, tokens or runs")
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.HARD)
    period = models.CharField(max_length=10, choices=Period.choices, default=Period.DAY)
    anchor = models.PositiveSmallIntegerField(default=1, help_text="first ISO weekday of a week, first day of a month")
    hours = models.PositiveIntegerField(default=0, help_text="length of a rolling period")
    timezone = models.CharField(max_length=64, default="UTC", validators=[check_timezone])
    thresholds = ArrayField(
        models.PositiveSmallIntegerField(validators=[MinValueValidator(1), MaxValueValidator(1000)]),
        default=default_thresholds,
        blank=True,
        help_text="percent",
    )
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["pk"]
        indexes = [
            models.Index(fields=["scope_kind", "scope_id"], condition=Q(active=True), name="budget_in_force"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["scope_kind", "scope_id", "name"], name="budget_name_once_per_scope"),
            models.CheckConstraint(condition=Q(limit_amount__gte=0), name="budget_limit_not_negative"),
            models.CheckConstraint(
                condition=Q(scope_kind=Scope.FLEET, scope_id=WHOLE_FLEET)
                | (~Q(scope_kind=Scope.FLEET) & ~Q(scope_id__in=["", WHOLE_FLEET])),
                name="budget_scope_named",
            ),
            models.CheckConstraint(condition=~Q(period=Period.ROLLING) | Q(hours__gte=1), name="budget_rolling_hours"),
            models.CheckConstraint(
                condition=Q(anchor__gte=1) & (Q(anchor__lte=7) | (~Q(period=Period.WEEK) & Q(anchor__lte=31))),
                name="budget_anchor_in_period",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def bounds_at(self, moment: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """Return start and end, in UTC, of the period around `moment` by today's rules of this budget."""
        return bounds(self.period, moment, timezone=self.timezone, anchor=self.anchor, hours=self.hours)


class _Span(Func):
    """The window's stretch of time, its end excluded."""

    function = "TSTZRANGE"
    output_field = DateTimeRangeField()


class _Own(Func):
    """A budget's id as a range: ranges can be excluded without PostgreSQL's btree_gist extension."""

    function = "INT8RANGE"
    output_field = BigIntegerRangeField()


class BudgetWindow(models.Model):
    """One period of one budget, made on first use; `posted` and `pending` are the numbers that decide and that are shown.

    `opening` is the part of `posted` that the ledger already showed when the window was made; `overrun` the part that no hold
    covered; `alerted` the highest threshold that fired. Bounds never change.
    """

    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="windows")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    limit_amount = models.BigIntegerField()
    opening = models.BigIntegerField(default=0)
    posted = models.BigIntegerField(default=0)
    pending = models.BigIntegerField(default=0)
    overrun = models.BigIntegerField(default=0)
    alerted = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["budget", "starts_at"], name="window_once_per_start"),
            models.CheckConstraint(condition=Q(posted__gte=0), name="window_posted_not_negative"),
            models.CheckConstraint(condition=Q(pending__gte=0), name="window_pending_not_negative"),
            models.CheckConstraint(condition=Q(limit_amount__gte=0), name="window_limit_not_negative"),
            models.CheckConstraint(
                condition=Q(overrun__gte=0, opening__gte=0, posted__gte=F("opening") + F("overrun")),
                name="window_shares_within_posted",
            ),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="window_ends_after_start"),
            ExclusionConstraint(
                name="window_never_overlaps",
                expressions=[
                    (_Own(F("budget"), F("budget"), Value("[]")), "&&"),
                    (_Span("starts_at", "ends_at", RangeBoundary()), "&&"),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.budget.name} from {self.starts_at:%Y-%m-%d %H:%M} UTC"

    @property
    def headroom(self) -> int:
        """Return what is neither posted nor held; negative after an overrun."""
        return self.limit_amount - self.posted - self.pending

    def contains(self, moment: dt.datetime) -> bool:
        """Return whether `moment` belongs to this window."""
        return self.starts_at <= moment < self.ends_at

    def crossed(self, thresholds: list[int]) -> list[int]:
        """Return the thresholds (percent) that `posted` has reached and that never fired in this window."""
        return [
            step
            for step in sorted(thresholds)
            if step > self.alerted and self.posted and self.posted * 100 >= self.limit_amount * step
        ]


class BudgetAlert(models.Model):
    """A threshold was reached: once per window and threshold, whatever happens to the limit afterwards."""

    window = models.ForeignKey(BudgetWindow, on_delete=models.PROTECT, related_name="alerts")
    threshold = models.PositiveSmallIntegerField(help_text="percent of the limit")
    posted = models.BigIntegerField()
    limit_amount = models.BigIntegerField()
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["window", "threshold"], name="alert_once_per_threshold")]

    def __str__(self) -> str:
        return f"{self.threshold} % of {self.window.budget.name}"


def in_scopes(scopes: Mapping[str, str]) -> Q:
    """Return the condition for budgets of any of these scopes, `{kind: id}`."""
    condition = Q(pk__in=[])
    for kind, identifier in scopes.items():
        condition |= Q(scope_kind=kind, scope_id=identifier)
    return condition
