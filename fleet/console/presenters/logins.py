"""The logins of the providers as the console shows them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fleet.console.statuses import Status


@dataclass(frozen=True, slots=True)
class LoginRow:
    """A provider and its login: whether it is used, else why not, since when and until when. `id` is that of a breaker, if it has one.

    `kind` is the word for what stands behind the login: a key, a subscription, or just a login where nobody knows any more.
    """

    provider: str
    login: str
    kind: str
    status: Status
    sentence: str
    opened_at: dt.datetime | None
    until: dt.datetime | None
    id: int | None
    may_be_reset: bool


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One promise and whether it was kept; `sentence` says what happened instead."""

    name: str
    kept: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class CheckRow:
    """An installed CLI: its version, and how its last check went. `at` is empty when it was never checked."""

    provider: str
    version: str
    status: Status
    sentence: str
    at: dt.datetime | None
    cases: tuple[CaseRow, ...]

    @property
    def kept(self) -> int:
        """Return how many promises were kept."""
        return sum(case.kept for case in self.cases)
