"""Prices: versions imported whole, never changed afterwards, so that an old cost can always be computed again."""

from __future__ import annotations

import pgtrigger
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from budgets.states import PRICED_UNITS, PriceBasis

_IMMUTABLE = pgtrigger.Protect(name="immutable", operation=pgtrigger.Update | pgtrigger.Delete)


class PriceVersion(models.Model):
    """One import of a price catalogue. The newest version prices new messages; older ones keep pricing their own."""

    source = models.CharField(max_length=80, help_text="catalogue and its version")
    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    imported_by = models.CharField(max_length=150)
    imported_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        triggers = [_IMMUTABLE]

    def __str__(self) -> str:
        return f"{self.source} ({self.sha256[:8]})"


class Price(models.Model):
    """A model of a version. `pattern` is a regular expression for every name the provider gives this model."""

    version = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="prices")
    provider = models.CharField(max_length=40)
    model = models.CharField(max_length=120)
    pattern = models.TextField()
    basis = models.CharField(max_length=10, choices=PriceBasis.choices)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["version", "provider", "model"], name="price_once_per_version"),
            models.CheckConstraint(condition=~Q(basis=PriceBasis.UNKNOWN), name="price_is_known"),
        ]
        triggers = [_IMMUTABLE]

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"


class Rate(models.Model):
    """What one unit of a model costs from a date on, for messages with more than `over_input_tokens` of input."""

    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="rates")
    unit = models.CharField(max_length=20, choices=[(unit.value, unit.label) for unit in PRICED_UNITS])
    effective_from = models.DateField(null=True, blank=True, help_text="UTC; empty: always")
    over_input_tokens = models.PositiveBigIntegerField(default=0)
    nano_usd = models.BigIntegerField(help_text="nano-dollars per unit")

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["price", "unit", "effective_from", "over_input_tokens"],
                nulls_distinct=False,
                name="rate_once_per_step",
            ),
            models.CheckConstraint(condition=Q(nano_usd__gte=0), name="rate_not_negative"),
        ]
        triggers = [_IMMUTABLE]

    def __str__(self) -> str:
        return f"{self.unit}: {self.nano_usd} nano-dollars"
