"""Django admin at thirty thousand rows: what only grows is paged by key, and no page counts the table or skips over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import AutoField
from django.test import Client
from django.urls import reverse

from conversations.models import Conversation, Delivery, InboundMessage, Message, Session, Turn
from execution.models import Execution, ExecutionEvent
from fleet.kernel.models import JournalEntry
from identities.admin import MatrixAdmin
from identities.models import ChatAccount, Identity, Person
from identities.permissions import Role
from tests.conversations import scenes
from tests.crowds import MANY, indexes_of, multiply, no_page_is_skipped_over, statements_of
from tests.factories.budgets import ReservationFactory, TokenLedgerFactory
from tests.factories.execution import set_the_table
from tests.factories.governance import GateDecisionFactory, StopLineFactory
from tests.factories.identities import ChatAccountFactory, PersonFactory, TextVersionFactory

SHELL = 2  # session, person
pytestmark = pytest.mark.django_db


@pytest.fixture
def client_of_admin(client: Client) -> Client:
    """Signed in as an administrator."""
    client.force_login(PersonFactory(username="root", roles=[Role.ADMIN]))
    return client


def talked() -> Turn:
    """One turn with everything it leaves behind."""
    person = scenes.operator()
    ChatAccount.objects.create(platform="telegram", external_id="501", person=person)
    scenes.bot("ada")
    set_the_table()
    return scenes.answer(scenes.turn_of(scenes.say()))


def talked_and(model: Any) -> Callable[[], Any]:
    """Return how to make a row of this model: by a turn."""

    def make() -> Any:
        turn = talked()
        if model is ExecutionEvent:
            return ExecutionEvent.objects.create(execution=turn.execution, sequence=9000, kind="text", payload={})
        return model.objects.order_by("pk").first()

    return make


# How to make a row of each large table, which of its columns differ from row to row, and the queries its list takes.
TABLES: dict[str, tuple[Callable[[], Any], dict[str, str], int]] = {
    "conversation": (talked_and(Conversation), {"chat_id": "'c' || n"}, 1),
    "turn": (talked_and(Turn), {"execution_id": "NULL"}, 1),
    "inboundmessage": (talked_and(InboundMessage), {"uuid": "gen_random_uuid()", "event_id": "'e' || n"}, 1),
    "message": (talked_and(Message), {}, 1),
    "delivery": (talked_and(Delivery), {"turn_id": "NULL"}, 1),
    "session": (talked_and(Session), {"state": "'rotated'", "provider_session_id": "gen_random_uuid()::text"}, 1),
    "execution": (talked_and(Execution), {"reservation_id": "1000 + n"}, 1),
    "executionevent": (talked_and(ExecutionEvent), {"sequence": "9000 + n"}, 1),
    "journalentry": (talked_and(JournalEntry), {}, 1),
    "gatedecision": (GateDecisionFactory, {}, 1),
    "stopline": (StopLineFactory, {"subject": "'s' || n"}, 1),
    "textversion": (TextVersionFactory, {"sha256": "md5(n::text)"}, 1),
    "reservation": (ReservationFactory, {"attempt": "'a' || n"}, 1),
    "tokenledger": (TokenLedgerFactory, {"message_id": "'m' || n"}, 1),
}


def address_of(row: Any) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_changelist")


@pytest.mark.parametrize("name", TABLES)
def test_a_large_table_is_paged_by_key(client_of_admin: Client, name: str) -> None:
    make, varied, number = TABLES[name]
    row = make()
    multiply(row, **varied)
    address = address_of(row)
    for place in ("", f"?before={row.pk + 100}"):
        statements = statements_of(lambda place=place: client_of_admin.get(address + place))
        assert no_page_is_skipped_over(statements)
        assert not [sql for sql in statements if "COUNT(" in sql]
        assert len(statements) == SHELL + number, "\n".join(statements)

    first = client_of_admin.get(address)
    assert len(first.context["cl"].result_list) == 50
    following = client_of_admin.get(address + first.context["cl"].older_url)
    assert following.context["cl"].result_list[0].pk < first.context["cl"].result_list[-1].pk
    assert "Newest" in following.content.decode()
    rows = type(row).objects.filter(pk__lt=row.pk + 100).order_by("-pk")[:51]
    assert "id" in indexes_of(rows)[f"{row._meta.db_table}_pkey"]


def test_filters_and_search_go_with_the_place(client_of_admin: Client) -> None:
    row = GateDecisionFactory(identity_slug="ada")
    multiply(row)
    multiply(GateDecisionFactory(identity_slug="bruno"), 60)
    address = address_of(row)

    first = client_of_admin.get(f"{address}?q=bruno")
    assert {found.identity_slug for found in first.context["cl"].result_list} == {"bruno"}
    following = client_of_admin.get(address + first.context["cl"].older_url)

    assert len(following.context["cl"].result_list) == 11
    assert {found.identity_slug for found in following.context["cl"].result_list} == {"bruno"}
    assert following.context["cl"].newest_url == "?q=bruno"


@pytest.mark.parametrize("place", ["x", "-1", "9" * 30])
def test_a_place_that_is_no_number_leads_to_the_first_page(client_of_admin: Client, place: str) -> None:
    address = address_of(GateDecisionFactory())
    assert client_of_admin.get(f"{address}?before={place}").url == f"{address}?e=1"
    assert client_of_admin.get(f"{address}?e=1").status_code == 200


def test_what_can_be_repaired_keeps_its_sortable_columns_and_counts_once(client_of_admin: Client) -> None:
    row = ChatAccountFactory()
    multiply(row, external_id="n + 100000")
    statements = statements_of(lambda: client_of_admin.get(address_of(row)))
    assert len([sql for sql in statements if "COUNT(" in sql]) == 1
    assert "-" not in client_of_admin.get(f"{address_of(row)}?o=2").context["cl"].get_query_string()
    assert ChatAccount.objects.count() == MANY + 1


def test_everything_that_is_only_read_is_paged_by_key_where_ids_tell_the_order() -> None:
    for model in apps.get_models():
        page = admin.site._registry.get(model)
        if isinstance(page, MatrixAdmin) and page.read_only:
            assert page.by_key is isinstance(model._meta.pk, AutoField), model


def test_the_list_of_bots_takes_the_same_at_any_length(client_of_admin: Client) -> None:
    bot = scenes.bot("ada")
    few = len(statements_of(lambda: client_of_admin.get(address_of(bot))))
    multiply(bot, slug="'bot-' || n")
    assert len(statements_of(lambda: client_of_admin.get(address_of(bot)))) == few
    assert (Identity.objects.count(), Person.objects.count()) == (MANY + 1, 1)
