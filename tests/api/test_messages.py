"""A message comes in over the API."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from budgets.models import Budget
from conversations.models import Conversation, InboundMessage, Turn
from execution.states import Cause, ExecutionState, OutcomeClass
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from governance.models import GateDecision
from identities.models import ChatAccount, Identity, Person
from tests.api.conftest import Call, gateway_token, token_of
from tests.conversations import scenes
from tests.execution.logins import two_logins

__all__ = ["two_logins"]

HELLO = {"identity": "ada", "text": "Hello"}


@pytest.fixture
def token(ada: Identity, eva: Person) -> str:
    """Eva's personal token, with Ada there to be talked to."""
    return token_of(eva)


class TestAPersonWithATokenOfTheirOwn:
    @pytest.mark.parametrize("path", ["/message", "/api/v1/messages"])
    def test_starts_a_turn_and_is_told_where_to_follow_it(self, call: Call, token: str, path: str) -> None:
        answer = call("POST", path, HELLO, token=token)

        assert answer.status_code == 202
        turn = Turn.objects.get()
        assert answer.json() == {
            "inbound_id": turn.inbound.get().pk,
            "turn_id": turn.pk,
            "status": "admitted",
            "events_url": f"/api/v1/turns/{turn.pk}/events",
            "turn_url": f"/api/v1/turns/{turn.pk}/",
        }

    def test_speaks_in_their_own_name_whatever_the_body_says(self, call: Call, token: str, eva: Person) -> None:
        answer = call("POST", "/message", {**HELLO, "sender": {"id": "1"}}, token=token)

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
        call("POST", "/message", HELLO, token=token)
        assert Turn.objects.get().person == eva

    def test_has_conversations_that_nobody_else_can_enter(
        self, call: Call, token: str, people: dict[str, Person]
    ) -> None:
        call("POST", "/message", {**HELLO, "chat_id": "plans"}, token=token)
        call("POST", "/message", {**HELLO, "chat_id": "plans"}, token=token_of(people["admin"]))

        assert Conversation.objects.count() == 2

    def test_gets_the_answer_of_a_command_at_once(self, call: Call, token: str) -> None:
        answer = call("POST", "/message", {"identity": "ada", "text": "/help"}, token=token)

        assert answer.status_code == 200
        assert answer.json()["status"] == "answered"
        assert "/stop" in answer.json()["text"]


class TestTheSameRequestAgain:
    def test_gives_the_first_ids_and_starts_nothing_new(self, call: Call, token: str) -> None:
        first = call("POST", "/message", HELLO, token=token, **{"Idempotency-Key": "k1"})
        again = call("POST", "/message", HELLO, token=token, **{"Idempotency-Key": "k1"})

        assert again.json() == first.json()
        assert again["Idempotent-Replayed"] == "true"
        assert Turn.objects.count() == 1

    def test_is_known_by_the_field_event_id_as_well(self, call: Call, token: str) -> None:
        first = call("POST", "/message", {**HELLO, "event_id": "k1"}, token=token)
        again = call("POST", "/message", {**HELLO, "event_id": "k1"}, token=token)

        assert again.json() == first.json()

    def test_with_another_body_is_a_conflict(self, call: Call, token: str) -> None:
        call("POST", "/message", HELLO, token=token, **{"Idempotency-Key": "k1"})
        answer = call("POST", "/message", {**HELLO, "text": "Bye"}, token=token, **{"Idempotency-Key": "k1"})

        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_mismatch")
        assert Turn.objects.count() == 1

    def test_by_somebody_else_is_another_request(self, call: Call, token: str, people: dict[str, Person]) -> None:
        first = call("POST", "/message", HELLO, token=token, **{"Idempotency-Key": "k1"})
        other = call("POST", "/message", HELLO, token=token_of(people["admin"]), **{"Idempotency-Key": "k1"})

        assert other.status_code == 202
        assert other.json()["turn_id"] != first.json()["turn_id"]

    def test_of_a_refused_message_is_refused_again_with_the_same_reason(self, call: Call, token: str) -> None:
        first = call("POST", "/message", {**HELLO, "text": ""}, token=token, **{"Idempotency-Key": "k1"})
        again = call("POST", "/message", {**HELLO, "text": ""}, token=token, **{"Idempotency-Key": "k1"})

        assert again.json() == first.json()
        assert InboundMessage.objects.count() == 1

    def test_needs_one_key_not_two(self, call: Call, token: str) -> None:
        answer = call("POST", "/message", {**HELLO, "event_id": "a"}, token=token, **{"Idempotency-Key": "b"})

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")

    @pytest.mark.parametrize("key", ["x" * 101, "tab\there"])
    def test_needs_a_readable_key_of_bounded_length(self, call: Call, token: str, key: str) -> None:
        assert call("POST", "/message", HELLO, token=token, **{"Idempotency-Key": key}).status_code == 400


class TestAMessageNoBotCanAnswer:
    @pytest.mark.parametrize(
        ("text", "status", "code"),
        [
            ("", 400, "empty"),
            (" \n ", 400, "empty"),
            ("a\x00b", 400, "unreadable"),
            ("half a pair: \ud800", 400, "unreadable"),
            ("x" * (64 * 1024 + 1), 413, "too_long"),
            ("x" * (1024 * 1024), 413, "too_long"),
            ("/dance", 400, "unknown_command"),
        ],
        ids=["empty", "blank", "NUL", "broken Unicode", "over 64 kB", "1 MB", "unknown command"],
    )
    def test_is_stored_as_refused_and_the_caller_told_why(
        self, call: Call, token: str, text: str, status: int, code: str
    ) -> None:
        answer = call("POST", "/message", {"identity": "ada", "text": text}, token=token)

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["what"] and answer.json()["next_step"]
        row = InboundMessage.objects.get(pk=answer.json()["inbound_id"])
        assert row.state == "refused"
        assert GateDecision.objects.filter(origin_kind="inbound", origin_id=row.pk, reason_code=code).exists()

    def test_for_a_bot_nobody_knows_is_stored_as_refused(self, call: Call, token: str) -> None:
        answer = call("POST", "/message", {"identity": "nobody", "text": "Hello"}, token=token)

        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_bot")
        assert InboundMessage.objects.get().state == "refused"


class TestABodyThatIsNoMessage:
    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (b"", 400, "invalid"),
            (b"{", 400, "invalid_json"),
            (b'{"text": NaN}', 400, "invalid_json"),
            (b'{"identity": "ada", "text": "\xff\xfe"}', 400, "invalid_json"),
            (b"[" * 100_000, 400, "invalid_json"),
            (b"[]", 400, "invalid"),
            (b'"ada"', 400, "invalid"),
            (b'{"identity": "ada"}', 400, "invalid"),
            (b'{"text": "Hello"}', 400, "invalid"),
            (b'{"identity": "a b", "text": "Hello"}', 400, "invalid"),
            (b'{"identity": "ada", "text": 7, "chat_id": {"a": 1}}', 400, "invalid"),
            (b'{"identity": "ada", "text": "Hello", "chat_id": "a\\u0000"}', 400, "invalid"),
            (b'{"identity": "ada", "txet": "Hello", "text": "Hello"}', 400, "invalid"),
            (b'{"text": "' + b"x" * (2 * 1024 * 1024) + b'"}', 413, "too_long"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_is_refused_with_a_sentence(self, call: Call, token: str, body: bytes, status: int, code: str) -> None:
        answer = call("POST", "/message", body, token=token)

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert set(answer.json()) == {"code", "what", "why", "next_step"}

    def test_names_a_field_that_does_not_exist(self, call: Call, token: str) -> None:
        assert "txet" in call("POST", "/message", {**HELLO, "txet": "Hello"}, token=token).json()["why"]

    def test_in_another_format_is_refused(self, call: Call, token: str) -> None:
        answer = call("POST", "/message", b"identity=ada", token=token, content_type="text/plain")

        assert (answer.status_code, answer.json()["code"]) == (415, "media_type")

    def test_in_chunks_of_unknown_length_is_refused(self, call: Call, token: str) -> None:
        answer = call("POST", "/message", b"", token=token, **{"Transfer-Encoding": "chunked"})

        assert (answer.status_code, answer.json()["code"]) == (411, "length_required")

    @pytest.mark.parametrize("wait", ["-1", "121", "soon", "nan"])
    def test_has_to_wait_for_a_sensible_time(self, call: Call, token: str, wait: str) -> None:
        answer = call("POST", f"/message?wait={wait}", HELLO, token=token)

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
        assert not InboundMessage.objects.exists()


class TestACallerWithoutTheRight:
    def test_is_asked_to_sign_in_without_a_token(self, call: Call, ada: Identity) -> None:
        answer = call("POST", "/message", HELLO)

        assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in")
        assert answer["WWW-Authenticate"].startswith("Bearer")

    def test_is_told_that_a_token_is_wrong(self, call: Call, ada: Identity) -> None:
        answer = call("POST", "/message", HELLO, token="flt_wrong")

        assert (answer.status_code, answer.json()["code"]) == (401, "wrong_token")

    def test_is_refused_as_a_viewer(self, call: Call, ada: Identity, people: dict[str, Person]) -> None:
        answer = call("POST", "/message", HELLO, token=token_of(people["viewer"]))

        assert (answer.status_code, answer.json()["code"]) == (403, "no_right")
        assert not InboundMessage.objects.exists()


class TestATurnThatIsNotAdmitted:
    def test_is_answered_with_the_refusal_of_a_kill_order(self, call: Call, token: str) -> None:
        governance_actions.stop(scope="fleet", mode="stop", reason="drill", by=Actor.system("test"))

        answer = call("POST", "/message", HELLO, token=token)

        assert (answer.status_code, answer.json()["code"]) == (403, "killed")
        assert answer.json()["status"] == "refused"
        assert "drill" in answer.json()["what"]
        assert Turn.objects.get(pk=answer.json()["turn_id"]).state == "refused"

    def test_is_answered_with_the_refusal_of_a_paused_bot(self, call: Call, token: str) -> None:
        Identity.objects.update(state="paused")

        answer = call("POST", "/message", HELLO, token=token)

        assert (answer.status_code, answer.json()["code"]) == (409, "bot_paused")

    def test_is_answered_with_the_refusal_of_a_spent_budget(self, call: Call, token: str) -> None:
        Budget.objects.create(name="No runs today", scope_kind="fleet", metric="runs", limit_amount=0)

        answer = call("POST", "/message", HELLO, token=token)

        assert (answer.status_code, answer.json()["code"]) == (403, "too_big")
        assert "No runs today" in answer.json()["what"]

    def test_is_answered_with_the_refusal_of_a_full_queue(self, call: Call, token: str) -> None:
        scenes.running(Turn.objects.get(pk=call("POST", "/message", HELLO, token=token).json()["turn_id"]))
        for _ in range(20):
            assert call("POST", "/message", HELLO, token=token).status_code == 202

        answer = call("POST", "/message", HELLO, token=token)

        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")


class TestAGateway:
    """It speaks for the paired senders of its own account."""

    FROM_EVA = {"text": "Hello", "chat_id": "501", "sender": {"id": "501", "name": "Eva"}}

    @pytest.fixture
    def gateway(self, ada: Identity, eva: Person, people: dict[str, Person]) -> str:
        ChatAccount.objects.create(platform="telegram", external_id="501", person=eva)
        return gateway_token(people["admin"])

    def test_hands_in_a_message_of_a_paired_sender(self, call: Call, gateway: str, eva: Person) -> None:
        answer = call("POST", "/message", self.FROM_EVA, token=gateway)

        assert answer.status_code == 202
        turn = Turn.objects.get()
        assert (turn.person, turn.identity.slug, turn.route["account"]) == (eva, "ada", "telegram:ada")

    def test_is_refused_for_a_sender_nobody_knows(self, call: Call, gateway: str) -> None:
        body = {**self.FROM_EVA, "sender": {"id": "999", "name": "Eva"}}

        answer = call("POST", "/message", body, token=gateway)

        assert (answer.status_code, answer.json()["code"]) == (403, "unpaired")
        assert "/pair" in answer.json()["next_step"]

    def test_cannot_name_another_bot_than_its_accounts(self, call: Call, gateway: str) -> None:
        scenes.bot("bob")

        answer = call("POST", "/message", {**self.FROM_EVA, "identity": "bob"}, token=gateway)

        assert (answer.status_code, answer.json()["code"]) == (403, "other_account")

    @pytest.mark.parametrize("missing", ["chat_id", "sender"])
    def test_has_to_say_who_speaks_and_where(self, call: Call, gateway: str, missing: str) -> None:
        body = {name: value for name, value in self.FROM_EVA.items() if name != missing}

        assert call("POST", "/message", body, token=gateway).status_code == 400

    def test_cannot_enter_a_conversation_that_a_person_holds_over_the_api(
        self, call: Call, token: str, eva: Person, people: dict[str, Person]
    ) -> None:
        call("POST", "/message", HELLO, token=token)
        theirs = Conversation.objects.get()
        ChatAccount.objects.create(platform="api", external_id="501", person=eva)
        gateway = gateway_token(people["admin"], "api:ada")

        call("POST", "/message", {**self.FROM_EVA, "chat_id": theirs.chat_id}, token=gateway)

        assert Turn.objects.exclude(conversation=theirs).count() == 1


def test_a_signed_in_page_needs_its_csrf_token(ada: Identity, eva: Person) -> None:
    from django.test import Client

    page = Client(enforce_csrf_checks=True)
    page.force_login(eva)

    answer = page.post("/message", json.dumps(HELLO), content_type="application/json")

    assert (answer.status_code, answer.json()["code"]) == (403, "refused")
    assert "CSRF" in answer.json()["why"]


def test_where_every_login_is_shut_for_too_long_the_refusal_is_final_and_says_until_when(
    call: Call, token: str, ada: Identity, two_logins: None, settings: Any
) -> None:
    """A program that came again by itself, after a Retry-After of seconds, would be refused again and again."""
    settings.FLEET_LONGEST_WAIT_HOURS = 0
    Identity.objects.filter(pk=ada.pk).update(provider_chain=["acme"])
    call("POST", "/message", HELLO, token=token)
    shut = {"cause": Cause.USAGE_LIMIT, "retry_at": clock.now() + dt.timedelta(hours=1)}
    scenes.end(scenes.running(Turn.objects.get()), ExecutionState.FAILED, OutcomeClass.LIMIT, **shut)

    answer = call("POST", "/message", HELLO, token=token)

    assert (answer.status_code, answer.json()["code"]) == (503, "no_provider")
    assert "Send it again after" in answer.json()["next_step"]
    assert "Retry-After" not in answer
