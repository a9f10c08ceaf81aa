"""The logins of the providers as the console shows them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fleet.console.statuses import Status


@dataclass(frozen=True, slots=True)
class LoginRow:
    """A provider and its login: whether it is used, else why not, since when and until when. `id` is that of a breaker, if it has one."""

    provider: str
    login: str
    status: Status
    sentence: str
    opened_at: dt.datetime | None
    until: dt.datetime | None
    id: int | None
    may_be_reset: bool
