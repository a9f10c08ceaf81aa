"""What people see at an address that is none, takes another method, is not for them, or got a form from yesterday."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client

from fleet.permissions import rule_for
from identities.permissions import Permission
from tests.api.conftest import Call, call, token_of  # noqa: F401 - a fixture
from tests.architecture.routes import routes
from tests.console.conftest import SignedIn
from tests.console.page import text_of

pytestmark = pytest.mark.usefixtures("ada")
OURS = 'class="entrance__card"'
ADDRESSES = sorted(
    {
        (route.name, route.address)
        for route in routes()
        if route.name.startswith(("console:", "account_", "mfa_", "identities:"))
    }
)


@pytest.mark.parametrize(("name", "address"), ADDRESSES)
def test_no_address_of_the_console_answers_a_reload_with_an_empty_page(
    signed_in: SignedIn, name: str, address: str
) -> None:
    response = signed_in("admin").get(address)
    assert response.status_code in (200, 302, 403, 404, 405)
    if response.status_code >= 400:
        assert OURS in response.content.decode()
    if response.status_code == 405:
        page = text_of(response)
        assert "This address is not a page." in page
        assert "Nothing was done." in page
        assert "POST" in response["Allow"]


@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("/logins/7/reset/", "/logins/"),
        ("/chat/5/busy/", "/chat/"),
        ("/account/tokens/5/revoke/", "/account/"),
        ("/kill-switch/stop/", "/kill-switch/"),
        ("/runner/workers/00000000-0000-4000-8000-000000000000/", "/runner/"),
    ],
)
def test_it_leads_to_the_page_that_the_address_belongs_to(signed_in: SignedIn, address: str, page: str) -> None:
    admin = signed_in("admin")
    response = admin.get(address)
    assert (response.status_code, f'href="{page}"' in response.content.decode()) == (405, True)
    assert admin.get(page).status_code == 200


def test_a_method_that_nobody_takes_is_explained_too(operator: Client) -> None:
    response = operator.put("/fleet/")
    assert response.status_code == 405
    assert "It takes GET, HEAD and not PUT." in text_of(response)


def test_django_s_own_pages_do_it_the_same_way(signed_in: SignedIn) -> None:
    response = signed_in("admin").get("/admin/logout/")
    assert (response.status_code, OURS in response.content.decode()) == (405, True)
    assert 'href="/admin/"' in response.content.decode()


def test_programs_get_it_as_json_everywhere(call: Call, people: dict[str, object]) -> None:  # noqa: F811 - the fixture
    token = token_of(people["admin"])
    for route in routes():
        if route.name.startswith("api:") and route.name not in ("api:docs", "api:schema"):
            response = call("DELETE", route.address, token=token)
            if response.status_code == 405:
                assert response.json()["code"] == "method", route.name
                assert response.json()["next_step"], route.name


def test_who_sent_a_form_while_signed_out_comes_back_to_the_page_of_the_form(client: Client) -> None:
    response = client.post("/logins/7/reset/", headers={"referer": "http://testserver/logins/?x=1"})
    assert response.url == "/accounts/login/?next=/logins/%3Fx%3D1"


@pytest.mark.parametrize("referer", ["https://example.org/logins/", "//example.org/x", "javascript:alert(1)", ""])
def test_nobody_is_led_elsewhere_by_it(client: Client, referer: str) -> None:
    assert client.post("/logins/7/reset/", headers={"referer": referer}).url == "/accounts/login/?next=/"


def test_an_address_pasted_while_signed_out_is_opened_after_signing_in(client: Client) -> None:
    assert client.get("/logins/?x=1").url == "/accounts/login/?next=/logins/%3Fx%3D1"


class TestEachLooksLikeOurs:
    @pytest.fixture
    def dark(self, operator: Client) -> Client:
        operator.cookies["fleet_theme"] = "dark"
        return operator

    def test_an_address_that_is_none(self, dark: Client) -> None:
        self.check(dark.get("/no-such-page/at-all/"), 404, "Nothing here")

    def test_what_is_not_for_this_role(self, dark: Client) -> None:
        self.check(dark.get("/admin/"), 403, "")

    def test_a_form_from_before_the_sign_in(self, dark: Client, people: dict[str, object]) -> None:
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(people["operator"])
        browser.cookies["fleet_theme"] = "dark"
        response = browser.post("/kill-switch/stop/", {"reason": "x"})
        self.check(response, 403, "This form is out of date")
        assert 'href="/kill-switch/"' in response.content.decode()

    def test_a_request_that_cannot_be_read(self, dark: Client) -> None:
        response = dark.post("/kill-switch/stop/", b"x", "multipart/form-data; boundary=")
        self.check(response, 400, "This request cannot be used")

    def test_a_form_that_is_too_long(self, dark: Client) -> None:
        body = b"reason=" + b"x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        self.check(dark.post("/kill-switch/stop/", body, "application/x-www-form-urlencoded"), 413, "too long")

    def check(self, response: object, status: int, text: str) -> None:
        page = response.content.decode()
        assert response.status_code == status
        assert OURS in page and 'data-theme="dark"' in page and text in page
        assert 'href="/"' in page


def test_the_rules_of_routes_that_only_take_forms_ask_for_somebody() -> None:
    for name, _ in ADDRESSES:
        rule = rule_for(name)
        assert rule is not None
        assert name.startswith(("account_", "mfa_", "identities:")) or rule.read != Permission.PUBLIC
