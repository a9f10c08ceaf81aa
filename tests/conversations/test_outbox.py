"""The outbox: a row before the call, a receipt after it, and an honest unknown."""

import datetime as dt

import pytest
from django.utils import timezone

from conversations import actions
from conversations.actions.outbox import settle_doubt
from conversations.models import Delivery
from conversations.states import DeliveryKind
from fleet.kernel.actors import Actor
from governance import actions as governance_actions

pytestmark = pytest.mark.django_db
SENDER = Actor.system("gateway:telegram")


def put(
    text: str = "Good day.", *, chat: str = "501", account: str = "telegram:ada", kind=DeliveryKind.ANSWER
) -> Delivery:
    return actions.deliver(account=account, chat_id=chat, kind=kind, text=text, by=SENDER)


def claim(*accounts: str, limit: int = 20) -> list[str]:
    return [row.text for row in actions.claim_deliveries(list(accounts or ["telegram:ada"]), limit=limit)]


def test_the_oldest_of_each_chat_is_claimed_and_only_one_per_chat():
    put("one")
    put("two")
    put("other chat", chat="502")
    assert claim() == ["one", "other chat"]
    assert claim() == []


def test_the_next_one_follows_when_the_first_has_its_receipt():
    first = put("one")
    put("two")
    claim()
    actions.delivered(delivery_id=first.pk, receipts=["77"], by=SENDER)
    first.refresh_from_db()
    assert (first.state, first.receipts) == ("sent", ["77"])
    assert claim() == ["two"]


def test_a_gateway_claims_only_for_the_accounts_it_serves():
    put(account="telegram:ben")
    assert claim("telegram:ada") == []
    assert claim("telegram:ben") == ["Good day."]


def test_a_passing_failure_waits_its_time_and_keeps_its_place():
    first = put("one")
    put("two")
    claim()
    actions.delivery_failed(delivery_id=first.pk, sentence="429", permanent=False, retry_after_seconds=60, by=SENDER)
    assert claim() == []
    Delivery.objects.filter(pk=first.pk).update(not_before=timezone.now() - dt.timedelta(seconds=1))
    assert claim() == ["one"]


def test_a_refusal_for_good_is_failed_and_lets_the_next_one_through():
    first = put("one")
    put("two")
    claim()
    actions.delivery_failed(delivery_id=first.pk, sentence="bot was blocked", permanent=True, by=SENDER)
    first.refresh_from_db()
    assert (first.state, first.sentence) == ("failed", "bot was blocked")
    assert claim() == ["two"]


def test_parts_that_went_out_make_a_refused_delivery_partial():
    delivery = put()
    claim()
    actions.delivery_receipt(delivery_id=delivery.pk, receipt="78")
    actions.delivery_failed(delivery_id=delivery.pk, sentence="chat is gone", permanent=True, by=SENDER)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.receipts) == ("partial", ["78"])


def test_a_call_without_a_receipt_is_sent_again_once_with_a_mark():
    delivery = put()
    claim()
    Delivery.objects.update(sending_since=timezone.now() - dt.timedelta(minutes=2))
    settle_doubt()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.doubtful) == ("pending", True)


def test_a_second_doubt_is_not_repeated():
    delivery = put()
    for _ in range(2):
        Delivery.objects.update(not_before=timezone.now() - dt.timedelta(seconds=1))
        claim()
        actions.delivery_unknown(delivery_id=delivery.pk, by=SENDER)
        settle_doubt()
    delivery.refresh_from_db()
    assert delivery.state == "failed"


def test_what_is_older_than_a_day_is_withheld_and_not_sent_late():
    delivery = put()
    Delivery.objects.update(created_at=timezone.now() - dt.timedelta(hours=25))
    settle_doubt()
    delivery.refresh_from_db()
    assert delivery.state == "suppressed"


def test_a_delivery_that_cannot_be_settled_does_not_hold_up_the_others(monkeypatch):
    poison, other = put(chat="501"), put(chat="502")
    claim()
    for delivery in (poison, other):
        actions.delivery_unknown(delivery_id=delivery.pk, by=SENDER)

    def stumble(*, delivery_id, by):
        if delivery_id == poison.pk:
            raise ValueError("nobody thought of this")
        return actions.resend(delivery_id=delivery_id, by=by)

    monkeypatch.setattr("conversations.actions.outbox.resend", stumble)
    assert settle_doubt() == 1
    assert dict(Delivery.objects.values_list("pk", "state")) == {poison.pk: "unknown", other.pk: "pending"}


def test_while_the_fleet_is_stopped_answers_wait_and_notices_go_out():
    put("an answer")
    put("a notice", chat="502", kind=DeliveryKind.NOTICE)
    order = governance_actions.stop(scope="fleet", scope_id="", mode="stop", reason="drill", by=SENDER)
    assert claim() == ["a notice"]
    governance_actions.lift(order=order, reason="over", by=SENDER)
    assert claim() == ["an answer"]


def test_while_a_bot_is_stopped_its_own_answers_wait_and_those_of_others_go_out():
    for bot in ("ada", "max"):
        put(f"an answer of {bot}", account=f"telegram:{bot}")
        put(f"a notice of {bot}", account=f"telegram:{bot}", chat="502", kind=DeliveryKind.NOTICE)
    both = ("telegram:ada", "telegram:max")
    order = governance_actions.stop(scope="identity", scope_id="ada", mode="stop", reason="drill", by=SENDER)
    assert claim(*both) == ["a notice of ada", "an answer of max", "a notice of max"]
    governance_actions.lift(order=order, reason="over", by=SENDER)
    assert claim(*both) == ["an answer of ada"]
