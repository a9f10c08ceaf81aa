"""The kill switch: numbers before, a typed word, a receipt after; nothing is called stopped while it lives."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client

from conversations.models import Turn
from fleet.console.screens.kill import kill_badge, stop_receipt
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from governance import queries as governance_queries
from governance.models import KillOrder, StopLine
from governance.states import KillMode, KillScope
from identities.models import Person
from tests.console.conftest import SignedIn
from tests.console.page import text_of
from tests.conversations import scenes

BY = Actor.system("test")
WHOLE_FLEET = {"scope": "*", "mode": "stop", "reason": "Wrong prices", "word": "STOP"}
pytestmark = pytest.mark.usefixtures("ada")


@pytest.fixture
def running(people: dict[str, Person]) -> Turn:
    """Ada answers somebody."""
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    turn = scenes.turn_of(scenes.say())
    scenes.running(turn)
    return turn


def order(**fields: object) -> KillOrder:
    """A stop over the whole fleet."""
    given = {"scope": KillScope.FLEET, "mode": KillMode.STOP, "reason": "Wrong prices", **fields}
    return governance_actions.stop(**given, by=BY)


def test_before_a_stop_the_page_counts_what_it_would_stop(operator: Client, running: Turn) -> None:
    page = text_of(operator.get("/kill-switch/"))
    assert "Running now 1" in page
    assert "Never used" in page


def test_a_stop_leads_to_its_receipt_where_what_still_lives_stands_first(operator: Client, running: Turn) -> None:
    response = operator.post("/kill-switch/stop/", WHOLE_FLEET)
    given = KillOrder.objects.get()
    assert response.url == f"/kill-switch/receipts/{given.pk}/"
    page = text_of(operator.get(response.url))
    assert page.index("1 thing has not stopped") < page.index("What was stopped")
    assert f"Execution {running.execution_id}" in page
    assert "Not quiet yet" in page
    assert "Fleet: Stopping" in page
    assert given.ordered_by == "operator"


def test_once_everything_is_gone_the_receipt_says_how_long_it_took(operator: Client, running: Turn) -> None:
    given = order()
    for line in governance_queries.open_lines(given):
        governance_actions.record_quiet(order=given, kind=line.kind, subject=line.subject, by=BY, killed=True)
    page = text_of(operator.get(f"/kill-switch/receipts/{given.pk}/"))
    assert "has not stopped" not in page
    assert "Stopped, verified" in page
    assert "stopped by the order" in page


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"word": ""}, "Type STOP in capitals"),
        ({"word": "stop"}, "Type STOP in capitals"),
        ({"reason": ""}, "This field is required."),
        ({"reason": "   "}, "This field is required."),
        ({"scope": "nobody"}, "not one of the available choices"),
    ],
)
def test_a_stop_that_is_not_meant_does_nothing(operator: Client, changes: dict[str, str], sentence: str) -> None:
    response = operator.post("/kill-switch/stop/", {**WHOLE_FLEET, **changes})
    assert response.status_code == 422
    page = text_of(response)
    assert "Nothing was done yet" in page
    assert sentence in page
    assert not KillOrder.objects.exists()


def test_one_bot_can_be_stopped_without_the_word(operator: Client) -> None:
    operator.post("/kill-switch/stop/", {"scope": "ada", "mode": "drain", "reason": "New soul"})
    given = KillOrder.objects.get()
    assert (given.scope, given.scope_id, given.mode) == ("identity", "ada", "drain")
    assert "Ada" in text_of(operator.get("/kill-switch/"))


def test_resuming_needs_a_reason_and_says_what_starts(operator: Client) -> None:
    given = order()
    assert "Nothing waits" in text_of(operator.get("/kill-switch/"))
    address = f"/kill-switch/orders/{given.pk}/resume/"
    assert operator.post(address, {}).status_code == 422
    assert operator.post(address, {f"order-{given.pk}-reason": "Feed corrected"}).url == "/kill-switch/"
    given.refresh_from_db()
    assert (given.state, given.lifted_by, given.lift_reason) == ("lifted", "operator", "Feed corrected")


def test_what_lifting_an_order_starts_is_counted_in_its_scope_without_what_waits_for_a_login(
    operator: Client, people: dict[str, Person]
) -> None:
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    scenes.bot("bob")
    for slug, chats in (("ada", "12"), ("bob", "345")):
        said = [scenes.say(account=f"telegram:{slug}", identity_slug=slug, chat_id=chat) for chat in chats]
    scenes.running(scenes.turn_of(said[-1]))
    parked = scenes.turn_of(scenes.say(account="telegram:bob", identity_slug="bob", chat_id="5"))
    for slug in ("ada", "bob"):
        order(scope=KillScope.IDENTITY, scope_id=slug, mode=KillMode.DRAIN)
    Turn.objects.filter(pk=parked.pk).update(parked_until=clock.now() + dt.timedelta(hours=1))
    page = text_of(operator.get("/kill-switch/"))
    assert page.count("2 turns wait and start as soon as no order holds them.") == 2
    assert "Waiting 5 turns and executions queued" in page
    order(mode=KillMode.DRAIN)
    whole, _, _ = (starts for _, starts, _ in operator.get("/kill-switch/").context["resumes"])
    assert whole == "4 turns wait and start as soon as no order holds them."


def test_resuming_twice_tells_that_it_was_done(operator: Client) -> None:
    given = order()
    address = f"/kill-switch/orders/{given.pk}/resume/"
    operator.post(address, {f"order-{given.pk}-reason": "Feed corrected"})
    assert operator.post(address, {f"order-{given.pk}-reason": "Again"}).status_code == 422
    assert operator.post("/kill-switch/orders/999/resume/", {"order-999-reason": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("role", "may_stop", "may_resume"),
    [("viewer", False, False), ("approver", True, False), ("operator", True, True), ("admin", True, True)],
)
def test_each_role_sees_only_what_it_may_do(signed_in: SignedIn, role: str, may_stop: bool, may_resume: bool) -> None:
    given = order(scope=KillScope.IDENTITY, scope_id="ada")
    client = signed_in(role)
    page = client.get("/kill-switch/").content.decode()
    assert ('name="word"' in page) is may_stop
    assert (f'name="order-{given.pk}-reason"' in page) is may_resume
    assert (client.post("/kill-switch/stop/", WHOLE_FLEET).status_code == 302) is may_stop
    resumed = client.post(f"/kill-switch/orders/{given.pk}/resume/", {f"order-{given.pk}-reason": "Enough"})
    assert (resumed.status_code == 302) is may_resume


def test_a_long_receipt_is_read_in_pages_and_what_lives_is_on_each(operator: Client) -> None:
    given = order()
    StopLine.objects.bulk_create(
        StopLine(order=given, kind="channel", subject=f"web:{n:03}", killed=True, quiet_at=given.ordered_at)
        for n in range(120)
    )
    StopLine.objects.create(order=given, kind="process", subject="7")
    receipt, more = stop_receipt(given.pk)
    assert (len(receipt.alive), len(receipt.gone)) == (1, 100)
    following, end = stop_receipt(given.pk, after=more)
    assert (len(following.alive), len(following.gone), end) == (1, 20, None)
    assert operator.get("/kill-switch/receipts/999/").status_code == 404


@pytest.mark.django_db
def test_the_strip_says_the_hardest_order_in_one_word() -> None:
    assert kill_badge([]).word == "Running"
    one_bot = order(scope=KillScope.IDENTITY, scope_id="ada")
    assert kill_badge([one_bot]).word == "1 held"
    drained = order(mode=KillMode.DRAIN)
    assert kill_badge([drained, one_bot]).word == "Drained"
    assert kill_badge([order(), drained]).word == "Stopped"


def test_a_process_that_had_nothing_to_do_is_called_so(operator: Client) -> None:
    order = governance_actions.stop(scope=KillScope.FLEET, scope_id="", mode=KillMode.STOP, reason="drill", by=BY)
    governance_actions.record_quiet(
        order=order, kind="process", subject="idle:4711", by=BY, killed=True, sentence="Gone."
    )
    page = operator.get(f"/kill-switch/receipts/{order.pk}/").content.decode()
    assert "Idle process 4711" in page
    assert "Execution idle" not in page
