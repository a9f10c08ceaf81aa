"""What goes wrong is explained: to programs as JSON, to people as a page."""

from __future__ import annotations

from typing import Never

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory

from fleet import errors
from fleet.kernel.exceptions import StateConflict
from identities.models import Person
from tests.api.conftest import Call, token_of


def away(*_: object, **__: object) -> Never:
    raise OperationalError("connection refused")


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/nothing/at/all"])
def test_an_address_that_leads_nowhere_is_explained(client: Client, db: None, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    if path.startswith("/api/"):
        assert answer.json()["code"] == "not_found"


def test_a_method_that_does_not_fit_is_explained(call: Call, people: dict[str, Person]) -> None:
    answer = call("DELETE", "/api/v1/messages", token=token_of(people["admin"]))

    assert (answer.status_code, answer.json()["code"]) == (405, "method")


def test_a_database_that_is_away_is_explained(
    call: Call, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of(people["admin"])
    monkeypatch.setattr("conversations.queries.conversations_of", away)

    answer = call("GET", "/api/v1/conversations", token=token)

    assert (answer.status_code, answer.json()["code"]) == (503, "database_away")
    assert answer["Retry-After"] == "5"


def test_a_database_that_is_away_is_explained_before_it_is_known_who_asks(
    call: Call, monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    monkeypatch.setattr("identities.queries.find_access_token", away)

    answer = call("GET", "/api/v1/conversations", token="flt_any")

    assert (answer.status_code, answer.json()["code"]) == (503, "database_away")


def test_a_mistake_of_ours_is_admitted_without_details(
    people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conversations.queries.conversations_of", lambda *_, **__: 1 / 0)
    client = Client(raise_request_exception=False)

    answer = client.get("/api/v1/conversations", headers={"Authorization": f"Bearer {token_of(people['admin'])}"})

    assert (answer.status_code, answer.json()["code"]) == (500, "error")
    assert "ZeroDivision" not in answer.content.decode()


@pytest.mark.parametrize(("path", "kind"), [("/api/v1/x", "application/json"), ("/fleet/", "text/html")])
def test_one_error_is_told_to_programs_and_to_people(rf: RequestFactory, db: None, path: str, kind: str) -> None:
    error = StateConflict("It has moved on.", why="Somebody was faster.", next_step="Read it again.")

    answer = errors.answer(rf.get(path), error)

    assert answer.status_code == 409
    assert answer["Content-Type"].startswith(kind)
    for part in ("It has moved on.", "Somebody was faster.", "Read it again."):
        assert part in answer.content.decode()


def test_a_page_nobody_may_see_yet_leads_to_the_sign_in_page(client: Client, db: None) -> None:
    answer = client.get("/fleet/")

    assert (answer.status_code, answer["Location"]) == (302, "/accounts/login/?next=/fleet/")
