"""Django admin for people, bots and the journal. Rights come from the matrix, and every repair leaves a journal row."""

from __future__ import annotations

import shlex
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import admin as _registers_group  # noqa: F401 - and it is taken away again below
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry, JournalSeal
from identities import actions
from identities.keyset import KeysetChangeList, among
from identities.models import (
    AccessToken,
    ChatAccount,
    Identity,
    McpServer,
    PairingAttempt,
    PairingCode,
    Person,
    SignInLink,
    TextPointer,
    TextVersion,
    ToolGrant,
)
from identities.permissions import Permission, Role
from identities.validators import validate_host

REPAIRED = "admin.record.repaired"
REMOVED = "admin.record.removed"


class MatrixAdmin(ModelAdmin):
    """Looking takes FLEET_VIEW, repairing RECORDS_EDIT; `read_only` for what never changes or changes only by its action."""

    read_only = False
    show_full_result_count = False
    list_per_page = 50
    change_list_template = "admin/paged_by_key.html"

    @property
    def by_key(self) -> bool:
        """Return whether the list is paged by key: all that only grows, where ids tell the order in which it came."""
        return self.read_only and isinstance(self.model._meta.pk, models.AutoField)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # type: ignore[override]
        """Return the list that fits the table's size."""
        return KeysetChangeList if self.by_key else ChangeList

    def get_sortable_by(self, request: HttpRequest) -> Any:
        """Return the columns to sort by; none where the list is paged by key."""
        return () if self.by_key else super().get_sortable_by(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether this person may look."""
        return Permission.FLEET_VIEW in rights(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether this person may add a row."""
        return not self.read_only and Permission.RECORDS_EDIT in rights(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether this person may repair a row."""
        return not self.read_only and Permission.RECORDS_EDIT in rights(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether this person may remove a row."""
        return not self.read_only and Permission.RECORDS_EDIT in rights(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the app is listed."""
        return self.has_view_permission(request)

    def save_model(self, request: HttpRequest, obj: Model, form: forms.Form, change: bool) -> None:
        """Save the row and journal who repaired what."""
        super().save_model(request, obj, form, change)
        journal.record(
            REPAIRED, by=_actor(request), subject=_subject(obj), fields=list(form.changed_data), added=not change
        )

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Remove the row and journal who did."""
        journal.record(REMOVED, by=_actor(request), subject=_subject(obj), was=str(obj))
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Remove each row of the selection on its own, so that each leaves its journal row."""
        for row in queryset:
            self.delete_model(request, row)


def rights(request: HttpRequest) -> frozenset[Permission]:
    """Return what the visitor may do; nothing for somebody who is not signed in."""
    return request.user.permissions if isinstance(request.user, Person) else frozenset()


def _actor(request: HttpRequest) -> Actor:
    assert isinstance(request.user, Person)  # noqa: S101 - admin lets nobody else save
    return Actor.person(request.user)


def _subject(row: Model) -> tuple[str, object]:
    return row._meta.model_name or "", row.pk


class PersonForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable when it runs
    """Roles as boxes to tick."""

    roles = forms.MultipleChoiceField(choices=Role.choices, required=False, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = Person
        fields = ("username", "email", "first_name", "last_name", "roles", "is_active", "timezone")


@admin.register(Person)
class PersonAdmin(MatrixAdmin):
    """People. Roles and the switch go through their actions, so the last administrator stays one."""

    form = PersonForm
    list_display = ("username", "roles", "is_active", "last_login")
    search_fields = ("username", "email")

    def save_model(self, request: HttpRequest, obj: Model, form: forms.Form, change: bool) -> None:
        """Save through the actions where there is one."""
        assert isinstance(obj, Person)  # noqa: S101 - what this admin is registered for
        if not change:
            obj.set_unusable_password()
        elif "roles" in form.changed_data:
            actions.set_roles(person=obj, roles=[Role(role) for role in obj.roles], by=_actor(request))
        if change and "is_active" in form.changed_data:
            actions.set_active(person=obj, active=obj.is_active, by=_actor(request))
        super().save_model(request, obj, form, change)


class IdentityForm(forms.ModelForm):  # type: ignore[type-arg]  # likewise
    """The hosts are checked here too: Django's form would say which of them is wrong and not why."""

    class Meta:
        model = Identity
        fields = "__all__"  # noqa: DJ007 - as admin shows them

    def clean_allowed_hosts(self) -> list[str]:
        """Return the hosts; ValidationError says of each that is none what to write."""
        hosts: list[str] = self.cleaned_data["allowed_hosts"] or []
        wrong = []
        for host in hosts:
            try:
                validate_host(host)
            except ValidationError as error:
                wrong.append(error)
        if wrong:
            raise ValidationError(wrong)
        return hosts


@admin.register(Identity)
class IdentityAdmin(MatrixAdmin):
    """Bots. Their state moves by its steps only, and a sandbox is waived by its action, which asks for a reason."""

    form = IdentityForm
    list_display = ("slug", "name", "title", "department", "state", "model", "owner")
    list_filter = ("state", "department", "network")
    list_select_related = ("owner",)
    search_fields = ("slug", "name", "title")
    readonly_fields = ("state", "created_at")

    def save_model(self, request: HttpRequest, obj: Model, form: forms.Form, change: bool) -> None:
        """Save, and waive or restore the sandbox through its action."""
        assert isinstance(obj, Identity)  # noqa: S101 - what this admin is registered for
        because, obj.sandbox_waiver = obj.sandbox_waiver, form.initial.get("sandbox_waiver", "")
        super().save_model(request, obj, form, change)
        if "sandbox_waiver" not in form.changed_data:
            return
        if because.strip():
            actions.waive_sandbox(identity=obj, because=because, by=_actor(request))
        else:
            actions.restore_sandbox(identity=obj, by=_actor(request))


class McpServerForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable when it runs
    """Command as one line, secrets as lines that are written and never shown."""

    command = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="as in a shell, for a program: npx -y some-server --flag. It begins in an empty directory; write paths in full. "
        "Where the bot works stands in its variable FLEET_WORKSPACE.",
    )
    secrets = forms.CharField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text="NAME=value, one a line: variables of the program, or headers. Empty: what is stored stays.",
    )

    class Meta:
        model = McpServer
        fields = ("identity", "name", "transport", "command", "url", "settings")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["command"] = shlex.join(self.instance.command or [])
        if self.instance.pk:
            self.fields["identity"].disabled = self.fields["name"].disabled = True

    def clean_command(self) -> list[str]:
        """Return the words of the command."""
        try:
            return shlex.split(self.cleaned_data["command"])
        except ValueError as error:
            raise forms.ValidationError(f"This is no command: {error}.") from error

    def clean_secrets(self) -> dict[str, str] | None:
        """Return the secrets by name; None when none were entered."""
        lines = [line for line in self.cleaned_data["secrets"].splitlines() if line.strip()]
        if not all(name.strip() and value for name, _, value in (line.partition("=") for line in lines)):
            raise forms.ValidationError("Write every secret as NAME=value, one a line.")
        return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)} or None


@admin.register(McpServer)
class McpServerAdmin(MatrixAdmin):
    """MCP servers of bots. Their secrets go in and never come out."""

    form = McpServerForm
    list_display = ("identity", "name", "transport", "secret_names")
    list_filter = ("transport",)
    list_select_related = ("identity",)
    readonly_fields = ("secret_names",)

    def save_model(self, request: HttpRequest, obj: Model, form: forms.Form, change: bool) -> None:
        """Connect it through the action, which seals the secrets."""
        assert isinstance(obj, McpServer)  # noqa: S101 - what this admin is registered for
        stored = actions.connect_server(
            identity=obj.identity,
            name=obj.name,
            transport=obj.transport,
            command=obj.command,
            url=obj.url,
            settings=obj.settings,
            secrets=form.cleaned_data["secrets"],
            by=_actor(request),
        )
        obj.pk = stored.pk

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Remove it through the action."""
        assert isinstance(obj, McpServer)  # noqa: S101 - likewise
        actions.remove_server(server=obj, by=_actor(request))


@admin.register(TextVersion)
class TextVersionAdmin(MatrixAdmin):
    """Every wording of souls and skills."""

    read_only = True
    list_display = ("identity", "kind", "name", "sha256", "author", "created_at")
    list_filter = ("kind",)
    list_select_related = ("identity",)


@admin.register(TextPointer)
class TextPointerAdmin(MatrixAdmin):
    """Which wording lives."""

    list_display = ("identity", "kind", "name", "live", "previous")
    list_select_related = ("identity", "live", "previous")
    raw_id_fields = ("live", "previous")


@admin.register(ToolGrant)
class ToolGrantAdmin(MatrixAdmin):
    """Tool grants."""

    list_display = ("identity", "pattern", "decision")
    list_filter = ("decision",)
    list_select_related = ("identity",)


@admin.register(ChatAccount)
class ChatAccountAdmin(MatrixAdmin):
    """Paired chat accounts."""

    list_display = ("platform", "external_id", "person", "paired_at")
    list_filter = ("platform",)
    list_select_related = ("person",)


@admin.register(PairingCode)
class PairingCodeAdmin(MatrixAdmin):
    """Pairing codes, without their hashes."""

    read_only = True
    exclude = ("code_hash",)
    list_display = ("person", "created_at", "expires_at", "used_at")
    list_select_related = ("person",)


@admin.register(PairingAttempt)
class PairingAttemptAdmin(MatrixAdmin):
    """Wrong codes. Removing rows lets an account try again."""

    list_display = ("platform", "external_id", "at")


@admin.register(AccessToken)
class AccessTokenAdmin(MatrixAdmin):
    """API tokens, without their hashes."""

    read_only = True
    exclude = ("token_hash",)
    list_display = ("name", "prefix", "person", "gateway", "expires_at", "last_used_at", "revoked_at")
    list_select_related = ("person",)


@admin.register(SignInLink)
class SignInLinkAdmin(MatrixAdmin):
    """Sign-in links, without their hashes."""

    read_only = True
    exclude = ("token_hash",)
    list_display = ("person", "created_at", "expires_at", "used_at")
    list_select_related = ("person",)


@admin.register(JournalEntry)
class JournalEntryAdmin(MatrixAdmin):
    """The journal: to read only, for everybody."""

    read_only = True
    list_display = ("id", "at", "event", "actor_name", "subject_kind", "subject_id")
    list_filter = (among("actor_kind", ("person", "bot", "system")),)
    search_fields = ("=event", "=subject_kind", "=subject_id", "=actor_name")
    ordering = ("-id",)


@admin.register(JournalSeal)
class JournalSealAdmin(MatrixAdmin):
    """The journal's chain."""

    read_only = True
    list_display = ("id", "entry_id", "hash", "sealed_at")
    ordering = ("-id",)


admin.site.unregister(Group)  # rights come from the matrix
