"""The accounts under which bots are reached, the processes that serve them, and who may poll with which token."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from pathlib import Path

import psutil
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from fleet.kernel import secrets
from fleet.kernel.transitions import steps_trigger
from gateways.states import ACCOUNT, AccountState, Platform
from identities.models import Identity

_TOKEN_PLACE = {"table": "gateways_gatewayaccount", "column": "token_sealed"}


def hash_of(token: str) -> str:
    """Return the SHA-256 (hex) of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class GatewayAccount(models.Model):
    """A bot's account on a platform. `key` (`telegram:ada`) is what conversations and deliveries name as `account`."""

    key = models.CharField(max_length=80, unique=True)
    platform = models.CharField(max_length=12, choices=Platform.choices)
    identity = models.ForeignKey(Identity, on_delete=models.PROTECT, related_name="gateway_accounts")
    state = models.CharField(max_length=10, choices=AccountState.choices, default=AccountState.ACTIVE)
    token_sealed = models.BinaryField(null=True, blank=True, editable=False)
    token_hash = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the token: the lease's key")
    environment_hash = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the token last taken over from the environment"
    )
    username = models.CharField(max_length=80, blank=True, help_text="as the platform reports it")
    last_inbound_at = models.DateTimeField(null=True, blank=True, help_text="last real message, not last poll")
    last_poll_at = models.DateTimeField(null=True, blank=True)
    sentence = models.TextField(blank=True, help_text="what is wrong and what to do, empty when nothing is")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["platform", "identity"], name="one_account_per_bot_and_platform"),
            models.UniqueConstraint(fields=["token_hash"], condition=~Q(token_hash=""), name="one_account_per_token"),
            models.CheckConstraint(
                condition=~Q(state=AccountState.REJECTED) | ~Q(sentence=""), name="rejected_account_says_why"
            ),
        ]
        triggers = [steps_trigger(ACCOUNT)]

    def __str__(self) -> str:
        return self.key

    def keep_token(self, token: str) -> None:
        """Put a token into the fields that hold it, sealed for this row; the caller saves them."""
        self.token_hash = hash_of(token)
        self.token_sealed = secrets.seal(token, row=self.key, **_TOKEN_PLACE)

    def read_token(self) -> str:
        """Return the token; SecretUnreadable when it does not open."""
        return secrets.unseal(bytes(self.token_sealed or b""), row=self.key, **_TOKEN_PLACE)


class GatewayProcess(models.Model):
    """One incarnation of a gateway process: a new random id at every start, and what proves later that it is gone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    host = models.CharField(max_length=120)
    boot_id = models.CharField(max_length=40)
    pid = models.PositiveIntegerField()
    pid_started_at = models.FloatField(help_text="tells a reused pid from the process itself")
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "gateway processes"

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"

    @classmethod
    def of_this_process(cls) -> GatewayProcess:
        """Return an unsaved row that describes the calling process."""
        me = psutil.Process()
        return cls(host=socket.gethostname(), boot_id=_boot_id(), pid=os.getpid(), pid_started_at=me.create_time())

    def is_provably_gone(self) -> bool:
        """Return whether the process has certainly ended; False where this machine cannot know."""
        if self.stopped_at is not None:
            return True
        if self.host != socket.gethostname():
            return False
        if self.boot_id != _boot_id():
            return True
        try:
            found = psutil.Process(self.pid)
            return found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - self.pid_started_at) > 1
        except psutil.NoSuchProcess:
            return True


class TokenLease(models.Model):
    """Which process may poll with a token, until when by the database's clock.

    Keyed by the token's hash and not by the account: a token may move to another account while somebody still polls with it.
    """

    token_hash = models.CharField(max_length=64, primary_key=True)
    holder = models.ForeignKey(GatewayProcess, on_delete=models.PROTECT, related_name="leases")
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.token_hash[:8]}… held by {self.holder}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
