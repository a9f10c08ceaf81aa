"""The ledger: what was used and what it cost, one row per provider message and unit."""

from __future__ import annotations

import pgtrigger
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from budgets.models.prices import Price
from budgets.models.reservations import Reservation
from budgets.states import TOKEN_UNITS, Billing, LedgerKind, Metric, PriceBasis, Unit
from fleet.kernel.models import no_truncate


class TokenLedger(models.Model):
    """One unit of one provider message. Append-only by trigger: a higher report adds a row with the difference.

    `execution_id` and `message_id` are the callers' words. The row of unit `run` has no message and no price: it counts the run.
    `billed_nano_usd` is zero under a subscription, where `cost_nano_usd` still says what the list price would have been.
    """

    reservation = models.ForeignKey(Reservation, on_delete=models.PROTECT, related_name="ledger")
    execution_id = models.BigIntegerField()
    message_id = models.CharField(max_length=120, blank=True)
    unit = models.CharField(max_length=20, choices=Unit.choices)
    revision = models.PositiveIntegerField(default=0)
    kind = models.CharField(max_length=12, choices=LedgerKind.choices)
    quantity = models.BigIntegerField()
    reasoning = models.BigIntegerField(default=0, help_text="the part of output that was thinking")
    price = models.ForeignKey(Price, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    basis = models.CharField(max_length=10, choices=PriceBasis.choices)
    cost_nano_usd = models.BigIntegerField(help_text="at list price")
    billed_nano_usd = models.BigIntegerField()
    billing = models.CharField(max_length=12, choices=Billing.choices)
    provider = models.CharField(max_length=20)
    model = models.CharField(max_length=120)
    identity_slug = models.CharField(max_length=80, blank=True)
    at = models.DateTimeField(help_text="the message's time")
    recorded_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "ledger row"
        verbose_name_plural = "token ledger"
        ordering = ["pk"]
        indexes = [
            models.Index(fields=["identity_slug", "at"], name="ledger_identity"),
            models.Index(fields=["at"], name="ledger_at"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["execution_id", "message_id", "unit", "revision"], name="ledger_once"),
            models.CheckConstraint(
                condition=Q(kind=LedgerKind.USAGE, revision=0) | Q(kind=LedgerKind.ADJUSTMENT, revision__gte=1),
                name="ledger_adjusts_later",
            ),
            models.CheckConstraint(
                condition=Q(quantity__gte=0, reasoning__gte=0, cost_nano_usd__gte=0), name="ledger_only_grows"
            ),
            models.CheckConstraint(
                condition=Q(billing=Billing.API, billed_nano_usd=models.F("cost_nano_usd"))
                | Q(billing=Billing.SUBSCRIPTION, billed_nano_usd=0),
                name="ledger_billed_as_paid",
            ),
            models.CheckConstraint(
                condition=Q(unit=Unit.RUN, price__isnull=True, cost_nano_usd=0)
                | (~Q(unit=Unit.RUN) & Q(price__isnull=False)),
                name="ledger_says_its_price",
            ),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            no_truncate(),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} {self.unit} of execution {self.execution_id}"

    def amount(self, metric: str) -> int:
        """Return what this row counts for a budget of `metric`."""
        if metric == Metric.IMPUTED:
            return self.cost_nano_usd
        if metric == Metric.BILLED:
            return self.billed_nano_usd
        counted = TOKEN_UNITS if metric == Metric.TOKENS else (Unit.RUN,)
        return self.quantity if self.unit in counted else 0


def amount_expression(metric: str) -> tuple[str, Q]:
    """Return the column and the condition that, summed over the ledger, give what `TokenLedger.amount` gives row by row."""
    if metric == Metric.IMPUTED:
        return "cost_nano_usd", Q()
    if metric == Metric.BILLED:
        return "billed_nano_usd", Q()
    return "quantity", Q(unit__in=TOKEN_UNITS if metric == Metric.TOKENS else (Unit.RUN,))
