"""Django admin of money: budgets change through their actions; what was counted is there to be read."""

from __future__ import annotations

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from budgets import actions
from budgets.actions.planning import CHANGEABLE
from budgets.models import (
    Budget,
    BudgetAlert,
    BudgetWindow,
    Price,
    PriceVersion,
    Rate,
    Reservation,
    ReservationLeg,
    TokenLedger,
)
from fleet.kernel.actors import Actor
from identities.admin import MatrixAdmin, rights
from identities.models import Person
from identities.permissions import Permission


class ReadAdmin(MatrixAdmin):
    """Rows that only actions write."""

    read_only = True
    ordering = ("-pk",)


@admin.register(Budget)
class BudgetAdmin(MatrixAdmin):
    """Budgets, for people who may change them. A budget is switched off, never removed."""

    list_display = ("name", "scope_kind", "scope_id", "metric", "limit_amount", "mode", "period", "timezone", "active")
    list_filter = ("scope_kind", "metric", "mode", "period", "active")
    search_fields = ("name", "scope_id")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether this person may make budgets."""
        return Permission.BUDGET_EDIT in rights(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether this person may change budgets."""
        return Permission.BUDGET_EDIT in rights(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return that nobody may: windows and ledger point here."""
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """Return what another budget would be needed for."""
        fixed = {field.name for field in Budget._meta.fields} - CHANGEABLE - {"id"}
        return tuple(sorted(fixed)) if obj else ("created_at",)

    def save_model(self, request: HttpRequest, obj: Model, form: forms.Form, change: bool) -> None:
        """Save through the action, which journals it and carries a new limit into the open window."""
        assert isinstance(obj, Budget)  # noqa: S101 - what this admin is registered for
        assert isinstance(request.user, Person)  # noqa: S101 - admin lets nobody else save
        by = Actor.person(request.user)
        if change:
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            actions.change_budget(budget_id=obj.pk, by=by, **changes)
        else:
            obj.pk = actions.create_budget(by=by, **form.cleaned_data).pk


@admin.register(BudgetWindow)
class BudgetWindowAdmin(ReadAdmin):
    """The numbers that decide."""

    list_display = ("budget", "starts_at", "ends_at", "limit_amount", "posted", "pending", "overrun", "alerted")
    list_select_related = ("budget",)


@admin.register(BudgetAlert)
class BudgetAlertAdmin(ReadAdmin):
    """Thresholds that were reached."""

    list_display = ("window", "threshold", "posted", "limit_amount", "at")
    list_select_related = ("window__budget",)


@admin.register(Reservation)
class ReservationAdmin(ReadAdmin):
    """Holds, live and past."""

    list_display = (
        "id",
        "attempt",
        "state",
        "model",
        "cost_nano_usd",
        "overran",
        "lease_until",
        "created_at",
        "ended_at",
    )
    list_filter = ("state", "overran")
    search_fields = ("=attempt", "=execution_id")


@admin.register(ReservationLeg)
class ReservationLegAdmin(ReadAdmin):
    """What each hold keeps of each budget."""

    list_display = ("reservation", "budget", "window", "granted", "held", "overrun")
    list_select_related = ("reservation", "budget", "window__budget")


@admin.register(TokenLedger)
class TokenLedgerAdmin(ReadAdmin):
    """The ledger: to read only, for everybody."""

    list_display = (
        "id", "at", "identity_slug", "execution_id", "model", "unit", "kind", "quantity", "cost_nano_usd", "billing", "basis",
    )  # fmt: skip
    list_filter = ("unit", "kind", "billing", "basis")
    search_fields = ("=execution_id", "=message_id", "=identity_slug")


@admin.register(PriceVersion)
class PriceVersionAdmin(ReadAdmin):
    """Imported price lists."""

    list_display = ("id", "source", "sha256", "imported_by", "imported_at")


@admin.register(Price)
class PriceAdmin(ReadAdmin):
    """The models of each list."""

    list_display = ("model", "provider", "basis", "version", "pattern")
    list_filter = ("provider", "basis")
    list_select_related = ("version",)
    search_fields = ("model",)


@admin.register(Rate)
class RateAdmin(ReadAdmin):
    """The rates of each model."""

    list_display = ("price", "unit", "over_input_tokens", "effective_from", "nano_usd")
    list_filter = ("unit",)
    list_select_related = ("price",)
    search_fields = ("price__model",)
