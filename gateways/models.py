"""The accounts under which bots are reached, and who polls them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from gateways.states import AccountState, Platform
from identities.models import Identity


class GatewayAccount(models.Model):
    """A bot's account on a platform. `key` (`telegram:ada`) is what conversations and deliveries name as `account`."""

    key = models.CharField(max_length=80, unique=True)
    platform = models.CharField(max_length=12, choices=Platform.choices)
    identity = models.ForeignKey(Identity, on_delete=models.PROTECT, related_name="gateway_accounts")
    state = models.CharField(max_length=10, choices=AccountState.choices, default=AccountState.ACTIVE)
    token_sealed = models.BinaryField(null=True, blank=True, editable=False)
    token_hash = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the token: the lease's key")
    username = models.CharField(max_length=80, blank=True, help_text="as the platform reports it")
    cursor = models.BigIntegerField(default=0, help_text="the next update id to ask for")
    lease_holder = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    last_inbound_at = models.DateTimeField(null=True, blank=True, help_text="last real message, not last poll")
    last_poll_at = models.DateTimeField(null=True, blank=True)
    sentence = models.TextField(blank=True, help_text="what is wrong and what to do, empty when nothing is")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["platform", "identity"], name="one_account_per_bot_and_platform"),
            models.UniqueConstraint(fields=["token_hash"], condition=~Q(token_hash=""), name="one_account_per_token"),
        ]

    def __str__(self) -> str:
        return self.key
