"""The journal and its seals."""

from __future__ import annotations

import pgtrigger
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Func
from django.db.models.functions import Now


def no_truncate() -> pgtrigger.Trigger:
    """Return the trigger that refuses to empty an append-only table at one stroke."""
    return pgtrigger.Trigger(
        name="no_truncate",
        level=pgtrigger.Statement,
        when=pgtrigger.Before,
        operation=pgtrigger.Truncate,
        func="RAISE EXCEPTION 'append-only: TRUNCATE on % is refused', TG_TABLE_NAME;",
    )


class CurrentTransaction(Func):
    """PostgreSQL's 64-bit id of the writing transaction."""

    function = "txid_current"
    template = "%(function)s()"
    output_field = models.BigIntegerField()


class JournalEntry(models.Model):
    """One thing that happened. Append-only by trigger, without foreign keys: history never blocks live data."""

    at = models.DateTimeField(db_default=Now(), editable=False)
    transaction = models.BigIntegerField(db_default=CurrentTransaction(), editable=False)
    event = models.CharField(max_length=80)
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=80)
    actor_name = models.CharField(max_length=150)
    subject_kind = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=80)
    details = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "journal entries"
        indexes = [
            models.Index(fields=["subject_kind", "subject_id", "-id"], name="journal_subject"),
            models.Index(fields=["event", "-id"], name="journal_event"),
            models.Index(fields=["transaction", "id"], name="journal_transaction"),
            BrinIndex(fields=["at"], name="journal_at"),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            no_truncate(),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.subject_kind}:{self.subject_id} by {self.actor_name}"


class JournalSeal(models.Model):
    """One link of the hash chain: position, the entry it seals, the previous hash and its own."""

    entry_id = models.BigIntegerField(unique=True)
    transaction = models.BigIntegerField()
    previous_hash = models.CharField(max_length=64, unique=True)
    hash = models.CharField(max_length=64, unique=True)
    sealed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            no_truncate(),
        ]

    def __str__(self) -> str:
        return f"seal {self.pk} of entry {self.entry_id}"
