"""The kill switch over the API."""

from __future__ import annotations

from typing import Any

import pytest

from conversations.models import Turn
from governance.models import KillOrder
from identities.models import Identity, Person
from tests.api.conftest import Call, token_of
from tests.conversations import scenes

EVERYTHING = {"scope": "fleet", "reason": "drill"}


def test_an_order_is_in_force_when_the_answer_comes(call: Call, ada: Identity, eva: Person) -> None:
    answer = call("POST", "/api/v1/kill-orders", EVERYTHING, token=token_of(eva))

    assert answer.status_code == 201
    assert answer.json()["order"]["ordered_by"] == "operator"
    refused = call("POST", "/message", {"identity": "ada", "text": "Hello"}, token=token_of(eva))
    assert refused.json()["code"] == "killed"


def test_its_receipt_names_what_still_has_to_fall_silent(call: Call, ada: Identity, eva: Person) -> None:
    message = call("POST", "/message", {"identity": "ada", "text": "Hello"}, token=token_of(eva)).json()
    execution = scenes.running(Turn.objects.get(pk=message["turn_id"]))

    order = call("POST", "/api/v1/kill-orders", EVERYTHING, token=token_of(eva)).json()
    receipt = call("GET", order["order"]["url"], token=token_of(eva)).json()

    assert receipt["milliseconds"] is None
    lines = {line["kind"]: line for line in receipt["lines"]}
    assert lines["process"]["subject"] == str(execution.pk)
    assert lines["process"]["milliseconds"] is None


def test_an_order_can_be_lifted_with_a_reason(call: Call, ada: Identity, eva: Person) -> None:
    order = call("POST", "/api/v1/kill-orders", EVERYTHING, token=token_of(eva)).json()["order"]

    lifted = call("POST", f"{order['url']}lift", {"reason": "over"}, token=token_of(eva))

    assert (lifted.status_code, lifted.json()["order"]["state"]) == (200, "lifted")
    assert call("GET", "/api/v1/kill-orders", token=token_of(eva)).json()["results"] == []
    again = call("POST", f"{order['url']}lift", {"reason": "over"}, token=token_of(eva))
    assert again.status_code == 409


def test_an_approver_may_stop_but_not_resume(call: Call, ada: Identity, people: dict[str, Person]) -> None:
    order = call("POST", "/api/v1/kill-orders", EVERYTHING, token=token_of(people["approver"])).json()["order"]

    answer = call("POST", f"{order['url']}lift", {"reason": "over"}, token=token_of(people["approver"]))

    assert (answer.status_code, answer.json()["code"]) == (403, "no_right")
    assert KillOrder.objects.get().state != "lifted"


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"scope": "fleet"}, 400, "invalid"),
        ({"scope": "fleet", "reason": " "}, 400, "invalid"),
        ({"scope": "fleet", "scope_id": "ada", "reason": "drill"}, 400, "invalid"),
        ({"scope": "identity", "reason": "drill"}, 404, "unknown_bot"),
        ({"scope": "identity", "scope_id": "nobody", "reason": "drill"}, 404, "unknown_bot"),
        ({"scope": "execution", "scope_id": "x", "reason": "drill"}, 400, "invalid"),
        ({"scope": "conversation", "scope_id": "9" * 30, "reason": "drill"}, 400, "invalid"),
        ({"scope": "everything", "reason": "drill"}, 400, "invalid"),
        ({"scope": "fleet", "mode": "explode", "reason": "drill"}, 400, "invalid"),
    ],
    ids=str,
)
def test_an_order_that_makes_no_sense_is_refused(
    call: Call, ada: Identity, eva: Person, order: dict[str, Any], status: int, code: str
) -> None:
    answer = call("POST", "/api/v1/kill-orders", order, token=token_of(eva))

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not KillOrder.objects.exists()


def test_an_order_nobody_gave_is_not_found(call: Call, eva: Person) -> None:
    assert call("GET", "/api/v1/kill-orders/7/", token=token_of(eva)).status_code == 404
    assert call("POST", "/api/v1/kill-orders/7/lift", {"reason": "over"}, token=token_of(eva)).status_code == 404
