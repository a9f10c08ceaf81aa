"""Django admin for gateways. Tokens are set in the console; here accounts are looked at, switched off and on."""

from __future__ import annotations

from typing import Protocol

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError
from gateways import actions
from gateways.models import GatewayAccount, GatewayProcess, TokenLease
from identities.admin import MatrixAdmin, rights
from identities.models import Person
from identities.permissions import Permission


class Verb(Protocol):
    """An action on one account."""

    def __call__(self, account: GatewayAccount, *, by: Actor) -> GatewayAccount:
        """Do it, or raise a FleetError."""
        ...


@admin.register(GatewayAccount)
class GatewayAccountAdmin(MatrixAdmin):
    """The bots' accounts on chat platforms."""

    read_only = True
    exclude = ["token_hash", "environment_hash"]
    list_display = ["key", "state", "username", "last_inbound_at", "last_poll_at", "sentence"]
    list_filter = ["platform", "state"]
    list_select_related = ["identity"]
    search_fields = ["key", "username"]
    actions = ["serve_again", "switch_off"]

    def has_gateway_edit_permission(self, request: HttpRequest) -> bool:
        """Return whether this person may decide what is served."""
        return Permission.GATEWAY_EDIT in rights(request)

    @admin.action(description="Serve again", permissions=["gateway_edit"])
    def serve_again(self, request: HttpRequest, queryset: QuerySet[GatewayAccount]) -> None:
        """Try the accounts again that were refused or switched off."""
        for account in queryset:
            self._do(request, account, actions.activate)

    @admin.action(description="Switch off", permissions=["gateway_edit"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[GatewayAccount]) -> None:
        """Stop serving the accounts."""
        for account in queryset:
            self._do(request, account, actions.switch_off)

    def _do(self, request: HttpRequest, account: GatewayAccount, verb: Verb) -> None:
        assert isinstance(request.user, Person)  # noqa: S101 - admin lets nobody else in
        try:
            verb(account, by=Actor.person(request.user))
        except FleetError as error:
            self.message_user(request, f"{account}: {error.sentence}", level="warning")


@admin.register(GatewayProcess)
class GatewayProcessAdmin(MatrixAdmin):
    """The gateway processes, living and past."""

    read_only = True
    list_display = ["id", "host", "pid", "started_at", "stopped_at"]


@admin.register(TokenLease)
class TokenLeaseAdmin(MatrixAdmin):
    """Who polls with which token."""

    read_only = True
    list_display = ["token_hash", "holder", "until"]
    list_select_related = ["holder"]
