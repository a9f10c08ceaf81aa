"""The OpenAPI document: complete, valid, and kept by the API under a storm of generated requests."""

from __future__ import annotations

import json
from io import StringIO
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from django.core.management import call_command
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, settings
from schemathesis.transport.wsgi import WSGI_TRANSPORT

from identities.models import Identity, Person
from tests.api.conftest import Call, token_of


def test_the_document_is_valid_and_made_without_a_warning() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


def test_it_is_served_to_whoever_is_signed_in(call: Call, people: dict[str, Person]) -> None:
    document = call("GET", "/api/schema/?format=json", token=token_of(people["viewer"])).json()

    assert "/api/v1/turns/{turn_id}/events" in document["paths"]
    assert "text/event-stream" in str(document["paths"]["/api/v1/turns/{turn_id}/events"])
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_its_page_brings_everything_along_and_needs_no_exception_from_the_security_policy(
    call: Call, people: dict[str, Person]
) -> None:
    page = call("GET", "/api/docs/", token=token_of(people["viewer"]))
    text = page.content.decode()

    assert page.status_code == 200
    assert "'unsafe" not in page["Content-Security-Policy"]
    assert "<style" not in text and "<script>" not in text
    assert "http://" not in text and "https://" not in text


document = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(request=None, public=True))


@pytest.mark.django_db
@document.exclude(path_regex="events$").exclude(path="/message").parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_generated_request_gets_an_answer_that_the_document_names(
    case: schemathesis.Case, ada: Identity, people: dict[str, Person]
) -> None:
    status = send(case, token_of(people["admin"]))

    if case.method == case.operation.method.upper():
        assert str(status) in case.operation.definition.raw["responses"]
    else:
        assert status in (200, 405)  # OPTIONS, or a method that this address does not take


def send(case: schemathesis.Case, token: str) -> int:
    """Send a generated request through Django's test client, which stays inside the test's transaction."""
    case.query = {name: value for name, value in (case.query or {}).items() if name != "wait"}
    request = WSGI_TRANSPORT.serialize_case(case, headers={"Authorization": f"Bearer {token}"})
    body = json.dumps(request["json"]).encode() if "json" in request else request.get("data") or b""
    answer = Client().generic(
        request["method"],
        quote(request["path"], safe="/%"),
        body if isinstance(body, bytes) else str(body).encode(),
        content_type="application/json",
        headers={name: str(value) for name, value in request["headers"].items()},
        QUERY_STRING=urlencode(request.get("query_string") or {}, doseq=True),
    )
    return answer.status_code
