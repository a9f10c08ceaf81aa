"""Django admin for executions: to look at. Nothing here changes but by its action."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin

from execution.models import Execution, ExecutionEvent, HeldProcess, Offer, OrphanResult, Worker
from identities.admin import MatrixAdmin
from identities.keyset import among


@admin.register(Execution)
class ExecutionAdmin(MatrixAdmin):
    """Provider turns, the newest first."""

    read_only = True
    list_display = ("id", "identity", "provider", "model", "state", "outcome", "spend_stage", "queued_at", "ended_at")
    list_filter = ("state", "outcome", among("provider", sorted(settings.FLEET_PROVIDERS)), "spend_stage")
    list_select_related = ("identity",)
    search_fields = ("=id", "=origin_id", "=session_id")
    ordering = ("-pk",)


@admin.register(ExecutionEvent)
class ExecutionEventAdmin(MatrixAdmin):
    """What happened in them, line by line."""

    read_only = True
    list_display = ("id", "execution_id", "sequence", "kind", "at")
    list_filter = ("kind",)
    search_fields = ("=execution__id",)
    ordering = ("-pk",)


@admin.register(Offer)
class OfferAdmin(MatrixAdmin):
    """What was said to bots while they worked, and whether the running turn took it."""

    read_only = True
    list_display = ("id", "execution_id", "uuid", "state", "doubtful", "offered_at", "decided_at")
    list_filter = ("state", "doubtful")
    search_fields = ("=execution__id", "=uuid")
    ordering = ("-pk",)


@admin.register(Worker)
class WorkerAdmin(MatrixAdmin):
    """Incarnations of worker processes."""

    read_only = True
    list_display = ("id", "host", "pid", "slots", "version", "started_at", "beat_at", "draining_at", "stopped_at")
    search_fields = ("host", "=pid")
    ordering = ("-started_at",)


@admin.register(OrphanResult)
class OrphanResultAdmin(MatrixAdmin):
    """What fenced workers still had."""

    read_only = True
    list_display = ("id", "execution_id", "epoch", "outcome", "created_at")
    search_fields = ("=execution__id",)
    ordering = ("-pk",)


@admin.register(HeldProcess)
class HeldProcessAdmin(MatrixAdmin):
    """Processes that stay in workers."""

    read_only = True
    list_display = ("id", "identity", "provider", "session_id", "turns", "pid", "megabytes", "idle_since")
    list_select_related = ("identity",)
    search_fields = ("=session_id", "=pid")
    ordering = ("-idle_since",)
