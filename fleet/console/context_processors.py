"""What the shell around every page shows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from execution import queries as execution_queries
from fleet.console.navigation import GROUPS, KILL_SWITCH, Page
from fleet.console.presenters import KillBadge
from fleet.console.screens.kill import MANY_HELD, kill_badge
from fleet.kernel import clock
from governance import queries as governance_queries
from identities.models import Person
from identities.permissions import Permission

NEXT_THEME = {"": "light", "light": "dark", "dark": ""}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the rail. `count` is shown only where something needs a person."""

    page: Page
    url: str
    current: bool
    count: int = 0


@dataclass(frozen=True, slots=True)
class Entries:
    """One group of the rail."""

    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """How this browser wants the console: kept in cookies, so that the first paint is right."""

    theme: str
    density: str

    @property
    def next_theme(self) -> str:
        """Return the theme that the toggle leads to."""
        return NEXT_THEME[self.theme]


@dataclass(frozen=True, slots=True)
class Shell:
    """The rail, the strip and the banners. `mock` says why bots answer by script and how to switch; empty when they do not."""

    groups: tuple[Entries, ...]
    on_kill_switch: bool
    kill: KillBadge
    mock: str
    environment: str
    timezone: str
    roles: str
    may_admin: bool
    loaded_at: dt.datetime


def shell(request: HttpRequest) -> dict[str, Any]:
    """Return `look` and, for whoever needs it, `shell`: an error page must come out even when the database is away."""
    return {"look": look_of(request), "shell": SimpleLazyObject(lambda: _shell(request))}


def look_of(request: HttpRequest) -> Look:
    """Return the look this browser asked for; anything unknown means the default."""
    theme, density = request.COOKIES.get("fleet_theme", ""), request.COOKIES.get("fleet_density", "")
    return Look(theme if theme in NEXT_THEME else "", density if density == "compact" else "")


def _shell(request: HttpRequest) -> Shell:
    person = request.user
    permissions = person.permissions if isinstance(person, Person) else frozenset()
    kill_switch = reverse(KILL_SWITCH.url_name)
    return Shell(
        groups=tuple(
            Entries(group.title, tuple(_entry(page, request.path) for page in group.pages)) for group in GROUPS
        ),
        on_kill_switch=request.path.startswith(kill_switch),
        kill=kill_badge(governance_queries.widest_orders(MANY_HELD + 1)),
        mock=execution_queries.execution_mode().sentence,
        environment=settings.FLEET_ENVIRONMENT,
        timezone=timezone.get_current_timezone_name(),
        roles=", ".join(sorted(person.roles)) if isinstance(person, Person) else "",
        may_admin=Permission.RECORDS_EDIT in permissions,
        loaded_at=clock.now(),
    )


def _entry(page: Page, path: str) -> Entry:
    url = reverse(page.url_name) if page.built else reverse("console:planned", args=[page.slug])
    return Entry(page, url, current=path.startswith(url))
