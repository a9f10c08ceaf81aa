"""One matrix decides who may come to which door; nothing is outside of it, and every door does as it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from django.core.management import get_commands
from django.http import HttpResponseBase
from django.test import Client
from django.test.client import ClientHandler

from fleet import permissions
from fleet.api.permissions import MatrixPermission
from fleet.celery import app as celery
from fleet.kernel.actors import Actor
from fleet.permissions import COMMANDS, JOBS, ROUTES, SOCKETS, rule_for
from gateways.routing import websocket_urlpatterns
from identities import actions as identity_actions
from identities.models import Person
from identities.permissions import MATRIX, Permission, Role
from tests.architecture.routes import Route, routes
from tests.architecture.source import PACKAGES

ALL = sorted(routes(), key=lambda route: route.name)
OURS = [route for route in ALL if not route.name.startswith("admin:")]
ADMIN = [route for route in ALL if route.name.startswith("admin:")]
BY = Actor.system("test")
HANDLER = ClientHandler(enforce_csrf_checks=False)  # shared: building the middleware takes longer than a request


class TestNothingIsUnclassified:
    @pytest.mark.parametrize("route", ALL, ids=lambda route: route.name)
    def test_route(self, route: Route) -> None:
        assert rule_for(route.name), f"{route.name} is missing in fleet/permissions.py"
        assert route.address, f"the tests know no address for {route.name}"

    def test_no_rule_without_a_route(self) -> None:
        names = [route.name for route in ALL]
        unused = [rule for rule in ROUTES if not any(fits(rule, name) for name in names)]

        assert unused == []

    def test_commands(self) -> None:
        ours = {name for name, app in get_commands().items() if str(app).split(".")[0] in PACKAGES}

        assert ours == set(COMMANDS)

    def test_jobs(self) -> None:
        celery.loader.import_default_modules()
        ours = {name for name in celery.tasks if name.split(".")[0] in PACKAGES}

        assert ours == JOBS

    def test_sockets(self) -> None:
        assert {str(route.pattern) for route in websocket_urlpatterns} == set(SOCKETS)

    def test_every_api_view_has_the_matrix_at_its_door(self) -> None:
        for route in ALL:
            if (view := getattr(route.view, "cls", None)) is not None:
                assert view.permission_classes == [MatrixPermission], route.name


def fits(rule: str, name: str) -> bool:
    return name.startswith(rule[:-1]) if rule.endswith("*") else name == rule


@dataclass(frozen=True)
class Caller:
    """Somebody at a door: by a session, by a token, as a gateway, or unknown."""

    name: str
    role: Role | None = None
    by_token: bool = False
    gateway: bool = False


CALLERS = [
    Caller("anonymous"),
    *(Caller(f"{role}, signed in", role) for role in Role),
    *(Caller(f"{role}, by token", role, by_token=True) for role in Role),
    Caller("gateway", Role.ADMIN, by_token=True, gateway=True),
]


def may_pass(route: Route, method: str, caller: Caller) -> bool:
    """What the matrix says, spelled out once more and not by the code under test."""
    rule = rule_for(route.name)
    assert rule is not None
    needed = rule.write if method == "POST" and rule.write else rule.read
    if needed == Permission.PUBLIC:
        return True
    takes_tokens = hasattr(route.view, "cls")
    if caller.role is None or (caller.by_token and not takes_tokens):
        return False
    if caller.gateway:
        return rule.gateway
    return needed == Permission.SIGNED_IN or needed in MATRIX[caller.role]


@pytest.fixture
def knock(db: None) -> Callable[[Caller, str, str], HttpResponseBase]:
    """Go to an address as this caller, from another machine."""
    people = {role: Person.objects.create_user(username=role, roles=[role]) for role in Role}
    tokens = {
        caller: identity_actions.issue_access_token(
            person=people[caller.role],
            name=caller.name,
            by=BY,
            gateway=caller.gateway,
            gateway_account="telegram:ada" if caller.gateway else "",
        )[0]
        for caller in CALLERS
        if caller.by_token and caller.role
    }

    def go(caller: Caller, method: str, address: str) -> HttpResponseBase:
        visitor = Client(REMOTE_ADDR="10.0.0.7", raise_request_exception=False)
        visitor.handler = HANDLER
        if caller.by_token:
            visitor.defaults["HTTP_AUTHORIZATION"] = f"Bearer {tokens[caller]}"
        elif caller.role:
            visitor.force_login(people[caller.role])
        return visitor.generic(method, address)

    return go


def was_turned_away(answer: HttpResponseBase) -> bool:
    """Whether it was the matrix that said no; a view may have reasons of its own."""
    if answer.status_code == 302:
        return answer["Location"].startswith("/accounts/login/?next=")
    text = b"" if answer.streaming else answer.content
    by_the_matrix = b"It takes the right" in text or b"It can only hand in messages" in text
    return answer.status_code == 401 or (answer.status_code == 403 and by_the_matrix)


@pytest.mark.parametrize("route", OURS, ids=lambda route: route.name)
def test_each_door_opens_to_exactly_whom_the_matrix_names(
    route: Route, knock: Callable[[Caller, str, str], HttpResponseBase]
) -> None:
    for method in ("GET", "POST"):
        for caller in CALLERS:
            answer = knock(caller, method, route.address)

            assert was_turned_away(answer) != may_pass(route, method, caller), f"{method} as {caller.name}"
            assert answer.status_code != 500, f"{method} as {caller.name}"


def test_admin_opens_to_administrators_only(knock: Callable[[Caller, str, str], HttpResponseBase]) -> None:
    for route in ADMIN:
        for caller in (Caller("anonymous"), Caller("operator", Role.OPERATOR), Caller("admin", Role.ADMIN)):
            answer = knock(caller, "GET", route.address)

            assert was_turned_away(answer) != may_pass(route, "GET", caller), f"{route.name} as {caller.name}"
            assert answer.status_code != 500, f"{route.name} as {caller.name}"


def test_a_route_that_nobody_classified_is_closed_to_everybody(
    knock: Callable[[Caller, str, str], HttpResponseBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(permissions.ROUTES, "console:fleet")

    answer = knock(Caller("admin", Role.ADMIN), "GET", "/fleet/")

    assert answer.status_code == 403
    assert "closed" in answer.content.decode()
