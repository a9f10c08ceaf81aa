"""What was withheld or did not arrive can be sent again when a person asks, and only then; where nobody sends, nothing waits."""

import datetime as dt

import pytest
from django.utils import timezone

from conversations import actions, ports
from conversations.actions.outbox import settle_doubt
from conversations.models import Delivery
from conversations.ports import has_sender, is_served, sending_platforms
from conversations.states import DeliveryKind
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Refused, StateConflict
from fleet.kernel.models import JournalEntry
from gateways.registry import ADAPTERS
from gateways.states import Platform
from tests.factories.gateways import GatewayAccountFactory

pytestmark = pytest.mark.django_db
SENDER = Actor.system("gateway:telegram")
EVA = Actor("person", "7", "eva")


@pytest.fixture
def served(ada):
    """Ada's Telegram account has a token and is active."""
    return GatewayAccountFactory(identity=ada)


def put(state="pending", *, account="telegram:ada", kind=DeliveryKind.ANSWER, hours=25, **fields):
    """A delivery that is a day old and has come to this state."""
    row = actions.deliver(account=account, chat_id="501", kind=kind, text="Good day.", by=SENDER)
    steps = {"failed": ["sending", "failed"], "unknown": ["sending", "unknown"], "partial": ["sending", "partial"]}
    for step in steps.get(state, [] if state == "pending" else [state]):
        Delivery.objects.filter(pk=row.pk).update(state=step)
    Delivery.objects.filter(pk=row.pk).update(created_at=timezone.now() - dt.timedelta(hours=hours), **fields)
    row.refresh_from_db()
    return row


def claimed():
    return [row.pk for row in actions.claim_deliveries(["telegram:ada"])]


def test_what_was_withheld_is_sent_when_a_person_asks_and_is_not_withheld_again(served):
    row = put()
    settle_doubt()
    row.refresh_from_db()
    assert row.state == "suppressed"

    actions.send_anyway(delivery_id=row.pk, by=EVA)
    settle_doubt()

    row.refresh_from_db()
    assert (row.state, row.sentence, row.ended_at, row.doubtful) == ("pending", "", None, False)
    assert claimed() == [row.pk]
    actions.delivered(delivery_id=row.pk, receipts=["77"], by=SENDER)
    row.refresh_from_db()
    assert row.state == "sent"


def test_what_was_asked_for_has_a_day_as_everything_else(served):
    row = put("suppressed")
    actions.send_anyway(delivery_id=row.pk, by=EVA)
    Delivery.objects.update(asked_at=timezone.now() - dt.timedelta(hours=25))
    assert claimed() == []
    settle_doubt()
    row.refresh_from_db()
    assert row.state == "suppressed"


def test_the_journal_says_who_asked_and_what_had_been_told(served):
    row = put("failed", sentence="bot was blocked")
    actions.send_anyway(delivery_id=row.pk, by=EVA)
    entry = JournalEntry.objects.filter(subject_kind="delivery", subject_id=str(row.pk)).latest("pk")
    assert (entry.actor_name, entry.details["from"], entry.details["to"]) == ("eva", "failed", "pending")
    assert (entry.details["asked"], entry.details["was"]) == (True, "bot was blocked")


@pytest.mark.parametrize(
    ("state", "fields", "doubtful"),
    [
        ("suppressed", {}, False),
        ("failed", {}, False),
        ("failed", {"doubtful": True}, True),
        ("unknown", {}, True),
        ("partial", {"receipts": ["77"]}, False),
    ],
)
def test_only_what_may_have_arrived_is_marked_as_possibly_repeated(served, state, fields, doubtful):
    row = put(state, **fields)
    sent = actions.send_anyway(delivery_id=row.pk, by=EVA)
    assert (sent.state, sent.doubtful, sent.receipts) == ("pending", doubtful, fields.get("receipts", []))


@pytest.mark.parametrize("state", ["pending", "sending", "sent"])
def test_what_is_on_its_way_or_has_arrived_is_not_sent_again(served, state):
    row = put(state, hours=0)
    with pytest.raises(StateConflict):
        actions.send_anyway(delivery_id=row.pk, by=EVA)
    row.refresh_from_db()
    assert row.state == state


def test_of_two_who_ask_at_once_one_is_told_that_it_is_on_its_way(served):
    row = put("suppressed")
    actions.send_anyway(delivery_id=row.pk, by=EVA)
    with pytest.raises(StateConflict):
        actions.send_anyway(delivery_id=row.pk, by=EVA)


def test_a_note_about_progress_is_not_sent_late(served):
    row = put("suppressed", kind=DeliveryKind.PROGRESS)
    with pytest.raises(Refused, match="progress"):
        actions.send_anyway(delivery_id=row.pk, by=EVA)


def test_without_a_gateway_that_would_send_it_the_person_is_told_what_to_do(ada):
    row = put("suppressed")
    with pytest.raises(Refused, match="token") as refused:
        actions.send_anyway(delivery_id=row.pk, by=EVA)
    assert refused.value.code == "not_served"
    account = GatewayAccountFactory(identity=ada)
    assert is_served(account.key)
    account.state = "off"
    account.save()
    assert not is_served(account.key)


def test_which_platforms_have_a_sending_process_is_what_the_registry_of_adapters_says():
    assert set(sending_platforms()) == set(ADAPTERS)
    assert [platform for platform in Platform if not has_sender(f"{platform}:ada")] == ["web", "api", "cli"]


@pytest.mark.parametrize("platform", ["web", "api", "cli", "slack", "webhook"])
def test_where_nobody_sends_storing_is_delivering(platform):
    row = actions.deliver(account=f"{platform}:ada", chat_id="1", kind=DeliveryKind.ANSWER, text="Hi", by=SENDER)
    assert row.state == "sent"
    assert row.ended_at is not None


@pytest.mark.parametrize("hours", [0, 25])
def test_what_waited_for_a_platform_that_nobody_serves_any_more_waits_no_longer(hours):
    row = put("pending", hours=hours)
    Delivery.objects.filter(pk=row.pk).update(account="slack:ada")
    other = put("pending", hours=0)

    settle_doubt()

    states = dict(Delivery.objects.values_list("pk", "state"))
    assert states == {row.pk: "sent", other.pk: "pending"}


def test_a_process_that_knows_of_no_gateways_calls_nothing_sent(monkeypatch):
    waiting = put("pending", hours=0)
    monkeypatch.setattr(ports, "_senders", {})

    settle_doubt()

    waiting.refresh_from_db()
    assert waiting.state == "pending"
