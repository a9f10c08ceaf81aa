"""Django admin for orders, receipts, decisions and policies: to read. What changes here changes by its action."""

from __future__ import annotations

from django.contrib import admin

from governance.models import GateDecision, KillEpoch, KillOrder, PolicyVersion, StopLine
from identities.admin import MatrixAdmin
from identities.keyset import among


@admin.register(KillOrder)
class KillOrderAdmin(MatrixAdmin):
    """Kill orders."""

    read_only = True
    list_display = ("id", "scope", "scope_id", "mode", "state", "ordered_by", "reason", "ordered_at", "quiet_at")
    list_filter = ("state", "scope")
    ordering = ("-id",)


@admin.register(StopLine)
class StopLineAdmin(MatrixAdmin):
    """Lines of receipts."""

    read_only = True
    list_display = ("order", "kind", "subject", "expected", "killed", "quiet_at")
    list_filter = (among("kind", ("process", "queue", "channel")),)
    list_select_related = ("order",)
    ordering = ("-id",)


@admin.register(KillEpoch)
class KillEpochAdmin(MatrixAdmin):
    """The kill epoch."""

    read_only = True
    list_display = ("value",)


@admin.register(GateDecision)
class GateDecisionAdmin(MatrixAdmin):
    """Gate decisions."""

    read_only = True
    list_display = ("id", "at", "gate", "outcome", "reason_code", "identity_slug", "origin_kind", "origin_id")
    list_filter = ("gate", "outcome")
    search_fields = ("=reason_code", "=identity_slug", "=origin_id")
    ordering = ("-id",)


@admin.register(PolicyVersion)
class PolicyVersionAdmin(MatrixAdmin):
    """Wordings of Gate 1's policy."""

    read_only = True
    list_display = ("id", "sha256", "author", "reason", "active", "created_at")
    ordering = ("-id",)
