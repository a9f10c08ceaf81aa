"""Who may use which route: one table for API, console, sign-in and Django admin. What is not in it is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.urls import ResolverMatch
from django.utils.deprecation import MiddlewareMixin

from fleet import errors
from fleet.kernel.exceptions import FleetError, Refused
from identities.models import AccessToken, Person
from identities.permissions import Permission

_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks for: `read` for GET, `write` (when it differs) for everything else.

    `gateway`: a gateway's token may use it too, within its own account. `loopback`: open to this machine itself.
    """

    read: Permission
    write: Permission | None = None
    gateway: bool = False
    loopback: bool = False

    def permission(self, method: str) -> Permission:
        """Return the permission that this HTTP method asks for."""
        return self.read if method in _SAFE or self.write is None else self.write


PUBLIC = Rule(Permission.PUBLIC)
SIGNED_IN = Rule(Permission.SIGNED_IN)

ROUTES: dict[str, Rule] = {
    "admin:*": Rule(Permission.RECORDS_EDIT),
    "account_*": PUBLIC,
    "mfa_*": SIGNED_IN,
}


class NotSignedIn(FleetError):
    """The route asks for a person and nobody is signed in."""

    status = 401
    code = "not_signed_in"


class RequestLike(Protocol):
    """The part of Django's and DRF's requests that a decision reads."""

    method: str | None
    META: dict[str, Any]
    resolver_match: ResolverMatch | None


def rule_for(route: str) -> Rule | None:
    """Return the rule of a route by its full name, else of the longest `prefix*` that fits, else None."""
    if route in ROUTES:
        return ROUTES[route]
    fitting = [name for name in ROUTES if name.endswith("*") and route.startswith(name[:-1])]
    return ROUTES[max(fitting, key=len)] if fitting else None


def check(request: RequestLike, *, person: Person | None, token: AccessToken | None = None) -> None:
    """Return when the matrix allows this request; raise NotSignedIn or Refused with a sentence otherwise."""
    route = request.resolver_match.view_name if request.resolver_match else ""
    rule = rule_for(route)
    if rule is None:
        raise Refused(
            "This address is closed.",
            why=f"The route {route or 'without a name'} is not in the matrix of routes.",
            next_step="Add it to fleet/permissions.py.",
            code="not_classified",
        )
    needed = rule.permission(request.method or "GET")
    if needed == Permission.PUBLIC or (rule.loopback and is_from_this_machine(request)):
        return
    if person is None or not person.is_authenticated:
        raise NotSignedIn("You are not signed in.", next_step="Sign in, or send an access token as a Bearer header.")
    if token is not None and token.gateway:
        return _check_gateway(rule)
    if needed != Permission.SIGNED_IN and needed not in person.permissions:
        raise Refused(
            "You may not do this.",
            why=f"It takes the right “{needed.label}”, and none of your roles has it.",
            next_step="Ask an administrator for the right.",
            code="no_right",
        )


def _check_gateway(rule: Rule) -> None:
    if not rule.gateway:
        raise Refused(
            "A gateway's token may not do this.",
            why="It can only hand in messages of its account and read their turns.",
            next_step="Use a personal token.",
            code="no_right",
        )


def is_from_this_machine(request: RequestLike) -> bool:
    """Return whether the caller itself sits on this machine, which behind a proxy nobody can tell."""
    if settings.SECURE_PROXY_SSL_HEADER or "HTTP_X_FORWARDED_FOR" in request.META:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


class MatrixMiddleware(MiddlewareMixin):
    """Asks the matrix before every view. API views ask it themselves, once they know whose token it is."""

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        """Return None to go on, a redirect to the sign-in page, or the refusal."""
        if hasattr(view, "cls"):  # a DRF view: MatrixPermission stands at its door
            return None
        try:
            check(request, person=_visitor(request))  # type: ignore[arg-type]
        except NotSignedIn as error:
            if errors.wants_json(request):
                return errors.answer(request, error)
            return redirect_to_login(request.get_full_path())
        except Exception as error:
            explained = errors.explain(error)
            if explained is None:
                raise
            return errors.answer(request, explained)
        return None


def _visitor(request: HttpRequest) -> Person | None:
    rule = rule_for(request.resolver_match.view_name) if request.resolver_match else None
    if rule is not None and rule.permission(request.method or "GET") == Permission.PUBLIC:
        return None  # spares the session: a health probe answers without the database
    return request.user if isinstance(request.user, Person) else None
