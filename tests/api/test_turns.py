"""Reading and stopping turns over the API."""

from __future__ import annotations

import pytest

from conversations.models import Turn
from identities.models import ChatAccount, Identity, Person
from tests.api.conftest import Call, gateway_token, token_of
from tests.conversations import scenes


@pytest.fixture
def turn(call: Call, ada: Identity, eva: Person) -> Turn:
    """A turn of Eva's that was admitted."""
    answer = call("POST", "/message", {"identity": "ada", "text": "Hello"}, token=token_of(eva))
    return Turn.objects.get(pk=answer.json()["turn_id"])


class TestReadingATurn:
    def test_shows_where_it_stands(self, call: Call, turn: Turn, eva: Person) -> None:
        shown = call("GET", f"/api/v1/turns/{turn.pk}/", token=token_of(eva)).json()

        assert (shown["status"], shown["ended"], shown["text"]) == ("admitted", False, "")
        assert (shown["identity"], shown["person"]) == ("ada", "operator")

    def test_shows_the_answer_with_its_receipt(self, call: Call, turn: Turn, eva: Person) -> None:
        scenes.answer(turn, "Good day.")

        shown = call("GET", f"/api/v1/turns/{turn.pk}/", token=token_of(eva)).json()

        assert (shown["status"], shown["ended"], shown["text"]) == ("replied", True, "Good day.")
        assert set(shown["receipt"]) == {
            "provider", "model", "tokens", "cost_nano_usd", "cost_usd", "cost_basis", "queue_ms", "engine_ms",
        }  # fmt: skip
        assert shown["receipt"]["queue_ms"] >= 0 and shown["receipt"]["engine_ms"] >= 0

    @pytest.mark.parametrize(
        ("nano", "text"),
        [(None, None), (0, "0.000000000"), (4_200_000, "0.004200000"), (12_400_000_001, "12.400000001")],
    )
    def test_shows_money_exactly_and_unknown_money_as_null(
        self, call: Call, turn: Turn, eva: Person, nano: int | None, text: str | None
    ) -> None:
        type(turn.execution).objects.filter(pk=turn.execution_id).update(cost_nano_usd=nano)

        receipt = call("GET", f"/api/v1/turns/{turn.pk}/", token=token_of(eva)).json()["receipt"]

        assert (receipt["cost_nano_usd"], receipt["cost_usd"]) == (nano, text)

    def test_is_for_those_who_may_see_the_fleet_too(self, call: Call, turn: Turn, people: dict[str, Person]) -> None:
        assert call("GET", f"/api/v1/turns/{turn.pk}/", token=token_of(people["viewer"])).status_code == 200

    def test_of_somebody_else_is_not_found_without_that_right(self, call: Call, turn: Turn, db: None) -> None:
        stranger = Person.objects.create_user(username="stranger", roles=[])

        answer = call("GET", f"/api/v1/turns/{turn.pk}/", token=token_of(stranger))

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    @pytest.mark.parametrize("number", [0, 999_999, 2**63, 2**200])
    def test_that_does_not_exist_is_not_found(self, call: Call, people: dict[str, Person], number: int) -> None:
        answer = call("GET", f"/api/v1/turns/{number}/", token=token_of(people["admin"]))

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_is_open_to_the_gateway_of_its_account_only(
        self, call: Call, ada: Identity, people: dict[str, Person]
    ) -> None:
        ChatAccount.objects.create(platform="telegram", external_id="501", person=people["operator"])
        turn = scenes.turn_of(scenes.say())
        own, other = gateway_token(people["admin"]), gateway_token(people["admin"], "telegram:bob")

        assert call("GET", f"/api/v1/turns/{turn.pk}/", token=own).status_code == 200
        assert call("GET", f"/api/v1/turns/{turn.pk}/", token=other).status_code == 404


class TestStoppingATurn:
    def test_stops_ones_own_that_waits_at_once(self, call: Call, turn: Turn, eva: Person) -> None:
        waiting = call("POST", "/message", {"identity": "ada", "text": "And?"}, token=token_of(eva))
        scenes.running(turn)
        waiting = call("POST", "/message", {"identity": "ada", "text": "And?"}, token=token_of(eva)).json()

        answer = call("POST", f"/api/v1/turns/{waiting['turn_id']}/stop", {"reason": "never mind"}, token=token_of(eva))

        assert (answer.status_code, answer.json()["status"]) == (202, "stopped")
        assert "never mind" in answer.json()["sentence"]

    def test_asks_the_worker_of_a_running_one(self, call: Call, turn: Turn, eva: Person) -> None:
        scenes.running(turn)

        answer = call("POST", f"/api/v1/turns/{turn.pk}/stop", token=token_of(eva))

        assert answer.status_code == 202
        turn.execution.refresh_from_db()
        assert turn.execution.stop_requested_at is not None
        assert turn.execution.stop_reason == "stopped by operator"

    def test_twice_is_harmless(self, call: Call, turn: Turn, eva: Person) -> None:
        scenes.running(turn)

        answers = [call("POST", f"/api/v1/turns/{turn.pk}/stop", token=token_of(eva)) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [202, 202]

    def test_of_somebody_else_takes_the_right_to(self, call: Call, turn: Turn, people: dict[str, Person]) -> None:
        approver = call("POST", f"/api/v1/turns/{turn.pk}/stop", token=token_of(people["approver"]))
        admin = call("POST", f"/api/v1/turns/{turn.pk}/stop", token=token_of(people["admin"]))

        assert (approver.status_code, approver.json()["code"]) == (403, "no_right")
        assert admin.status_code == 202

    def test_is_not_for_gateways(self, call: Call, turn: Turn, people: dict[str, Person]) -> None:
        answer = call("POST", f"/api/v1/turns/{turn.pk}/stop", token=gateway_token(people["admin"], "api:ada"))

        assert (answer.status_code, answer.json()["code"]) == (403, "no_right")
