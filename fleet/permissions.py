"""Who may use which route: one table for API, console, sign-in and Django admin. What is not in it is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.urls import ResolverMatch
from django.utils.deprecation import MiddlewareMixin
from django.utils.http import url_has_allowed_host_and_scheme

from fleet import errors
from fleet.kernel.exceptions import FleetError, Refused
from identities.models import AccessToken, Person
from identities.permissions import Permission
from identities.policies import check_can

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
VIEW = Rule(Permission.FLEET_VIEW)

# Which rows a person may see is the business of each app's queries; here stands who may come to the door.
ROUTES: dict[str, Rule] = {
    # probes
    "api:healthz": PUBLIC,
    "api:readyz": PUBLIC,
    "api:metrics": Rule(Permission.FLEET_VIEW, loopback=True),
    # talking
    "api:message": Rule(Permission.BOT_TALK, gateway=True),
    "api:messages": Rule(Permission.BOT_TALK, gateway=True),
    "api:turn": Rule(Permission.SIGNED_IN, gateway=True),
    "api:turn-events": Rule(Permission.SIGNED_IN, gateway=True),
    "api:turn-stop": Rule(Permission.BOT_TALK),  # one's own turn, or anybody's with the right to: the view asks
    "api:conversations": SIGNED_IN,
    "api:conversation": Rule(Permission.SIGNED_IN, write=Permission.BOT_TALK),  # changed as console:busy_mode is
    "api:conversation-messages": SIGNED_IN,
    # stopping
    "api:kill-orders": Rule(Permission.FLEET_VIEW, write=Permission.FLEET_STOP),
    "api:kill-order": VIEW,
    "api:kill-order-lift": Rule(Permission.FLEET_RESUME),
    # reading about the API
    "api:schema": SIGNED_IN,
    "api:docs": SIGNED_IN,
    # the console; whose conversation it is, and whose turn, is decided behind these doors
    "console:home": VIEW,
    "console:planned": VIEW,
    "console:preferences": SIGNED_IN,
    "console:fleet": VIEW,
    "console:bot": VIEW,
    "console:chat": VIEW,
    "console:chat_new": Rule(Permission.BOT_TALK),
    "console:conversation": VIEW,
    "console:messages": Rule(Permission.FLEET_VIEW, write=Permission.BOT_TALK),
    "console:message": VIEW,
    "console:busy_mode": Rule(
        Permission.BOT_TALK
    ),  # in one's own conversation, or anybody's with the right to change bots
    "console:stop_turn": Rule(Permission.BOT_TALK),  # likewise
    "console:delivery": Rule(Permission.FLEET_VIEW, write=Permission.DELIVERY_SEND),
    "console:kill_switch": VIEW,
    "console:kill_badge": VIEW,
    "console:stop_receipt": VIEW,
    "console:stop": Rule(Permission.FLEET_STOP),
    "console:resume": Rule(Permission.FLEET_RESUME),
    "console:logins": VIEW,
    "console:reset_login": Rule(Permission.LOGIN_RESET),
    "console:runner": VIEW,
    "console:drain_worker": Rule(Permission.WORKER_STEER),
    "console:end_process": Rule(Permission.WORKER_STEER),
    "console:account": SIGNED_IN,
    "console:pair": SIGNED_IN,
    "console:make_token": SIGNED_IN,
    "console:revoke_token": SIGNED_IN,
    "console:gateway_token": Rule(Permission.GATEWAY_EDIT),
    # a one-time link is its own proof
    "identities:sign_in_link": PUBLIC,
    # signing in, by allauth; sign-up is closed by the account adapter
    "account_login": PUBLIC,
    "account_logout": PUBLIC,
    "account_inactive": PUBLIC,
    "account_signup": PUBLIC,
    "account_reset_password*": PUBLIC,
    "account_confirm_*": PUBLIC,
    "account_email_verification_sent": PUBLIC,
    "account_email": SIGNED_IN,
    "account_change_password": SIGNED_IN,
    "account_set_password": SIGNED_IN,
    "account_reauthenticate": SIGNED_IN,
    "mfa_authenticate": PUBLIC,
    "mfa_*": SIGNED_IN,
    # Django admin repairs records
    "admin:*": Rule(Permission.RECORDS_EDIT),
}

# The WebSockets; each asks for its permission again while it is open.
SOCKETS: dict[str, Permission] = {
    "ws/console/": Permission.FLEET_VIEW,
    "ws/chat/<int:conversation_id>/": Permission.FLEET_VIEW,
}

# What a command on the machine amounts to. Whoever may run it holds the machine and is asked for nothing but the name of a person;
# `say --as` goes through the same intake as everybody.
COMMANDS: dict[str, Permission] = {
    "say": Permission.BOT_TALK,
    "status": Permission.FLEET_VIEW,
    "stop": Permission.FLEET_STOP,
    "resume": Permission.FLEET_RESUME,
    "fleet": Permission.BOT_EDIT,
    "sandbox": Permission.BOT_EDIT,
    "seed_fleet": Permission.BOT_EDIT,
    "create_person": Permission.PEOPLE_EDIT,
    "signin_link": Permission.PEOPLE_EDIT,
    "pairing_code": Permission.PEOPLE_EDIT,
    "prepare": Permission.RECORDS_EDIT,
    "providers": Permission.RECORDS_EDIT,
    "runner": Permission.RECORDS_EDIT,
    "worker": Permission.RECORDS_EDIT,
    "gateways": Permission.GATEWAY_EDIT,
    "state_diagrams": Permission.PUBLIC,
    "chaos": Permission.PUBLIC,
}

# What a worker does on a hint. A hint carries ids only, and the row it names decides; so it needs no right of its own.
JOBS: frozenset[str] = frozenset(
    {"conversations.advance", "conversations.silence", "execution.expect", "execution.run"}
)


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


def check(request: RequestLike, person: Callable[[], Person | None], token: AccessToken | None = None) -> None:
    """Return when the matrix allows this request; raise NotSignedIn or Refused with a sentence otherwise.

    `person` is asked for only where it matters: a probe must answer while the database is away.
    """
    rule = _rule_of(request)
    needed = rule.permission(request.method or "GET")
    if needed == Permission.PUBLIC or (rule.loopback and is_from_this_machine(request)):
        return
    who = person()
    if who is None:
        raise NotSignedIn("You are not signed in.", next_step="Sign in, or send an access token as a Bearer header.")
    if token is not None and token.gateway:
        _check_gateway(rule)
    elif needed != Permission.SIGNED_IN:
        check_can(who, needed)


def _rule_of(request: RequestLike) -> Rule:
    route = request.resolver_match.view_name if request.resolver_match else ""
    rule = rule_for(route)
    if rule is None:
        raise Refused(
            "This address is closed.",
            why=f"The route {route or 'without a name'} is not in the matrix of routes.",
            next_step="Add it to fleet/permissions.py.",
            code="not_classified",
        )
    return rule


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
    behind_proxy: bool = getattr(settings, "SECURE_PROXY_SSL_HEADER", None) is not None
    if behind_proxy or "HTTP_X_FORWARDED_FOR" in request.META:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def _after_signing_in(request: HttpRequest) -> str:
    """Return where somebody goes on who has signed in: to the page they asked for, or back to the one whose form they sent."""
    if request.method in _SAFE:
        return request.get_full_path()
    form = request.headers.get("Referer", "")
    ours = url_has_allowed_host_and_scheme(form, {request.get_host()}, require_https=request.is_secure())
    parts = urlsplit(form)
    return f"{parts.path}?{parts.query}".rstrip("?") if ours and parts.path else "/"


class MatrixMiddleware(MiddlewareMixin):
    """Asks the matrix before every view. API views ask it themselves, once they know whose token it is."""

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        """Return None to go on, a redirect to the sign-in page, or the refusal."""
        if hasattr(view, "cls"):  # a DRF view: MatrixPermission stands at its door
            return None
        try:
            check(request, lambda: request.user if isinstance(request.user, Person) else None)
        except NotSignedIn as error:
            if errors.wants_json(request):
                return errors.answer(request, error)
            return redirect_to_login(_after_signing_in(request))
        except Exception as error:
            explained = errors.explain(error)
            if explained is None:
                raise
            return errors.answer(request, explained)
        return None
