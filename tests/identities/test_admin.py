"""Django admin: rights by the matrix, history to read only, and every repair in the journal."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry
from identities.admin import MatrixAdmin
from identities.models import Identity, Person
from identities.permissions import Role
from tests.factories.identities import (
    AccessTokenFactory,
    IdentityFactory,
    PairingCodeFactory,
    PersonFactory,
    SignInLinkFactory,
    TextVersionFactory,
    ToolGrantFactory,
)

OURS = ("kernel", "identities", "governance")
HISTORY = {
    "journalentry",
    "journalseal",
    "textversion",
    "killorder",
    "stopline",
    "killepoch",
    "gatedecision",
    "policyversion",
    "accesstoken",
    "pairingcode",
    "signinlink",
}
MODELS = [model for model in apps.get_models() if model._meta.app_label in OURS]
pytestmark = pytest.mark.django_db


def request_of(*roles: str) -> HttpRequest:
    """A request of a person with these roles."""
    request = RequestFactory().get("/admin/")
    request.user = Person(pk=7, username="eva", roles=list(roles))
    return request


@pytest.fixture
def admin_client(client: Client) -> Client:
    """Signed in as an administrator."""
    client.force_login(PersonFactory(username="root", roles=[Role.ADMIN]))
    return client


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.model_name)
class TestEveryModel:
    def test_it_is_there_and_asks_the_matrix(self, model: Any):
        assert isinstance(admin.site.get_model_admin(model), MatrixAdmin)

    @pytest.mark.parametrize(
        ("role", "looks", "repairs"),
        [("", False, False), ("viewer", True, False), ("operator", True, False), ("admin", True, True)],
    )
    def test_rights_are_those_of_the_matrix_and_history_is_never_repaired(
        self, model: Any, role: str, looks: bool, repairs: bool
    ):
        page, request = admin.site.get_model_admin(model), request_of(*([role] if role else []))
        repairs = repairs and model._meta.model_name not in HISTORY

        assert (page.has_view_permission(request), page.has_module_permission(request)) == (looks, looks)
        assert page.has_change_permission(request) is repairs
        assert page.has_add_permission(request) is repairs
        assert page.has_delete_permission(request) is repairs

    def test_its_list_opens(self, model: Any, admin_client: Client):
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        assert admin_client.get(address).status_code == 200


def test_django_s_groups_are_not_offered_as_a_second_road_to_power():
    assert not admin.site.is_registered(Group)


def test_a_list_costs_the_same_whatever_its_length(admin_client: Client, django_assert_max_num_queries: Any):
    for _ in range(20):
        ToolGrantFactory()

    with django_assert_max_num_queries(8):
        admin_client.get(reverse("admin:identities_toolgrant_changelist"))


@pytest.mark.parametrize(
    ("factory", "column"),
    [(AccessTokenFactory, "token_hash"), (SignInLinkFactory, "token_hash"), (PairingCodeFactory, "code_hash")],
)
def test_the_hash_of_a_secret_is_not_shown(admin_client: Client, factory: Any, column: str):
    row = factory()

    page = admin_client.get(reverse(f"admin:identities_{row._meta.model_name}_change", args=[row.pk]))

    assert page.status_code == 200
    assert getattr(row, column) not in page.content.decode()


def test_a_person_s_password_is_not_shown(admin_client: Client):
    eva = PersonFactory(username="eva", password="md5$salt$0123456789abcdef")
    page = admin_client.get(reverse("admin:identities_person_change", args=[eva.pk]))
    assert "0123456789abcdef" not in page.content.decode()


@pytest.mark.parametrize(
    "make", [lambda: journal.record("x.y.z", by=Actor.system("x"), subject=("a", 1)), TextVersionFactory]
)
def test_history_cannot_be_changed_from_here(admin_client: Client, make: Any):
    row = make()
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}"

    assert admin_client.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200
    assert admin_client.post(reverse(f"{name}_change", args=[row.pk]), {"event": "lie"}).status_code == 403
    assert admin_client.post(reverse(f"{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403


class TestRepairs:
    def form(self, bot: Identity, **fields: str) -> dict[str, object]:
        kept = (
            "slug",
            "name",
            "title",
            "department",
            "model",
            "max_turns",
            "max_minutes",
            "max_tool_calls",
            "max_megabytes",
        )
        values = {name: getattr(bot, name) for name in (*kept, "concurrency", "timezone", "network", "prewarmed")}
        return {**values, "provider_chain": "claude", **fields}

    def test_a_repair_is_journalled_with_who_and_what(self, admin_client: Client):
        bot = IdentityFactory()

        answer = admin_client.post(
            reverse("admin:identities_identity_change", args=[bot.pk]), self.form(bot, title="Chief")
        )

        assert answer.status_code == 302
        assert Identity.objects.get().title == "Chief"
        entry = JournalEntry.objects.get()
        assert (entry.event, entry.actor_name, entry.subject_id) == ("admin.record.repaired", "root", str(bot.pk))
        assert "title" in entry.details["fields"]

    def test_removing_a_selection_leaves_a_journal_row_each(self, admin_client: Client):
        rows = [ToolGrantFactory().pk for _ in range(3)]

        admin_client.post(
            reverse("admin:identities_toolgrant_changelist"),
            {"action": "delete_selected", "_selected_action": rows, "post": "yes"},
        )

        assert JournalEntry.objects.filter(event="admin.record.removed", actor_name="root").count() == 3

    def test_roles_go_through_their_action(self, admin_client: Client):
        eva = PersonFactory(username="eva", roles=[Role.VIEWER])

        admin_client.post(
            reverse("admin:identities_person_change", args=[eva.pk]),
            {"username": "eva", "roles": ["operator"], "is_active": "on", "timezone": "UTC"},
        )

        assert Person.objects.get(pk=eva.pk).roles == ["operator"]
        assert JournalEntry.objects.filter(event="identities.person.changed", actor_name="root").exists()

    def test_the_last_administrator_stays_one_here_too(self, admin_client: Client):
        root = Person.objects.get(username="root")

        answer = admin_client.post(
            reverse("admin:identities_person_change", args=[root.pk]),
            {"username": "root", "roles": ["viewer"], "is_active": "on", "timezone": "UTC"},
        )

        assert answer.status_code == 403
        assert Person.objects.get(pk=root.pk).roles == ["admin"]
