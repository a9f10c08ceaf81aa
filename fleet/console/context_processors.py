"""What the shell around every page shows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from fleet.console.navigation import GROUPS, KILL_SWITCH, Page
from fleet.console.presenters import KillBadge
from fleet.kernel import clock
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
    """The rail, the strip and the banners."""

    groups: tuple[Entries, ...]
    on_kill_switch: bool
    kill: KillBadge
    mock: bool
    environment: str
    timezone: str
    roles: str
    may_admin: bool
    loaded_at: dt.datetime
