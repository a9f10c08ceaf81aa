"""Kill orders with their receipts, the kill epoch, gate decisions and policies."""

from __future__ import annotations

import hashlib

import pgtrigger
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from fleet.kernel.models import no_truncate
from fleet.kernel.transitions import steps_trigger
from governance.states import ORDER, Gate, KillMode, KillScope, OrderState, Outcome

IN_FORCE = Q(state__in=[OrderState.STOPPING, OrderState.QUIET])


class KillEpoch(models.Model):
    """The one number that every order raises. Work admitted under an older number is checked again before it starts."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    value = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "kill epoch"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_kill_epoch")]
        triggers = [
            pgtrigger.Protect(
                name="only_rises",
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(new__value__lte=pgtrigger.F("old__value")),
            ),
            pgtrigger.Protect(name="stays", operation=pgtrigger.Delete),
        ]

    def __str__(self) -> str:
        return str(self.value)


class KillOrder(models.Model):
    """Stop this, now, and let nothing of it start until the order is lifted.

    `scope_id` is empty for the fleet, else the bot's slug, the conversation's id or the execution's id.
    """

    scope = models.CharField(max_length=12, choices=KillScope.choices)
    scope_id = models.CharField(max_length=80, blank=True)
    mode = models.CharField(max_length=5, choices=KillMode.choices)
    reason = models.CharField(max_length=400)
    state = models.CharField(max_length=8, choices=OrderState.choices, default=OrderState.STOPPING)
    epoch = models.BigIntegerField(unique=True)
    ordered_at = models.DateTimeField(db_default=Now(), editable=False)
    ordered_by = models.CharField(max_length=150)
    quiet_at = models.DateTimeField(null=True, blank=True)
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.CharField(max_length=150, blank=True)
    lift_reason = models.CharField(max_length=400, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=(Q(scope="fleet") & Q(scope_id="")) | (~Q(scope="fleet") & ~Q(scope_id="")),
                name="kill_order_names_what_it_stops",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="kill_order_has_a_reason"),
            models.CheckConstraint(
                condition=~Q(state="lifted") | (Q(lifted_at__isnull=False) & ~Q(lifted_by="") & ~Q(lift_reason="")),
                name="kill_order_lifted_with_a_reason",
            ),
            models.CheckConstraint(condition=~Q(state="quiet") | Q(quiet_at__isnull=False), name="kill_order_quiet_at"),
            models.UniqueConstraint(
                fields=["scope", "scope_id", "mode"], condition=IN_FORCE, name="one_kill_order_in_force"
            ),
        ]
        indexes = [models.Index(fields=["scope", "scope_id"], condition=IN_FORCE, name="kill_order_in_force")]
        triggers = [steps_trigger(ORDER)]

    def __str__(self) -> str:
        return f"{self.mode} {self.scope} {self.scope_id}".rstrip()

    @property
    def in_force(self) -> bool:
        """Return whether the order still holds."""
        return self.state != OrderState.LIFTED

    @property
    def reach(self) -> str:
        """Return what the order reaches, in words: `the whole fleet`, `the bot ada`, `conversation 12`."""
        names = {KillScope.FLEET: "the whole fleet", KillScope.IDENTITY: f"the bot {self.scope_id}"}
        return names.get(KillScope(self.scope), f"{self.scope} {self.scope_id}")

    @property
    def sentence(self) -> str:
        """Return who stopped what and why, as one sentence."""
        verb = "drained" if self.mode == KillMode.DRAIN else "stopped"
        return f"{self.ordered_by} {verb} {self.reach}: {self.reason.rstrip('.')}."


class StopLine(models.Model):
    """One line of an order's receipt: what was alive when the order was given, and when it was seen to be quiet."""

    order = models.ForeignKey(KillOrder, on_delete=models.PROTECT, related_name="lines")
    kind = models.CharField(max_length=12, help_text="process, queue or channel")
    subject = models.CharField(max_length=120)
    expected = models.BooleanField(default=True, help_text="false: came up after the order was given, and was caught")
    killed = models.BooleanField(null=True, blank=True, help_text="false: it ended by itself")
    sentence = models.CharField(max_length=400, blank=True)
    closed_by = models.CharField(max_length=150, blank=True)
    quiet_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "kind", "subject"], name="one_line_per_subject"),
            models.CheckConstraint(
                condition=Q(quiet_at=None, killed=None) | Q(quiet_at__isnull=False, killed__isnull=False),
                name="stop_line_closed_whole",
            ),
        ]
        triggers = [
            pgtrigger.Protect(
                name="closed_stays_closed",
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(old__quiet_at__isnull=False),
            ),
            pgtrigger.Protect(name="no_delete", operation=pgtrigger.Delete),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"


class GateDecision(models.Model):
    """What a gate said to one request, and why. Append-only and without foreign keys, as the journal is."""

    at = models.DateTimeField(db_default=Now(), editable=False)
    gate = models.CharField(max_length=10, choices=Gate.choices)
    outcome = models.CharField(max_length=6, choices=Outcome.choices)
    reason_code = models.CharField(max_length=60)
    sentence = models.TextField()
    next_step = models.TextField(blank=True)
    origin_kind = models.CharField(max_length=20)
    origin_id = models.CharField(max_length=80)
    identity_slug = models.CharField(max_length=60, blank=True)
    person_id = models.BigIntegerField(null=True, blank=True)
    facts = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(outcome="allow") | ~Q(sentence=""), name="gate_decision_explains_itself")
        ]
        indexes = [
            models.Index(fields=["origin_kind", "origin_id", "-id"], name="gate_decision_origin"),
            models.Index(fields=["identity_slug", "-id"], name="gate_decision_identity"),
            models.Index(fields=["outcome", "-id"], name="gate_decision_outcome"),
            BrinIndex(fields=["at"], name="gate_decision_at"),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            no_truncate(),
        ]

    def __str__(self) -> str:
        return f"{self.gate}: {self.outcome} ({self.reason_code})"


class PolicyVersion(models.Model):
    """One immutable wording of Gate 1's policy (Cedar). Exactly one is active; only that mark ever moves."""

    text = models.TextField()
    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    author = models.CharField(max_length=150)
    reason = models.CharField(max_length=400)
    active = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["active"], condition=Q(active=True), name="one_active_policy"),
        ]
        triggers = [
            pgtrigger.ReadOnly(name="immutable", exclude=["active"]),
            pgtrigger.Protect(name="no_delete", operation=pgtrigger.Delete),
        ]

    def __str__(self) -> str:
        return f"policy {self.pk} {self.sha256[:8]}"

    @staticmethod
    def hash_of(text: str) -> str:
        """Return the SHA-256 (hex) of a wording."""
        return hashlib.sha256(text.encode()).hexdigest()
