"""The event of a provider that asks its API again by itself: one of `execution.ports.ProviderEvent`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from execution.outcomes import Ruling


@dataclass(frozen=True, slots=True)
class Retrying:
    """Its API did not answer as it should, so the provider waits and asks again. It is no silence, and may go on for long.

    `at` is when it asks again, where it says so; `attempt` of `most` is which try that will be, 0 where it does not count.
    """

    because: Ruling
    at: dt.datetime | None = None
    attempt: int = 0
    most: int = 0

    @property
    def text(self) -> str:
        """Return the sentence for whoever watches; its time is in UTC."""
        when = f" at {self.at.astimezone(dt.UTC):%H:%M:%S} UTC" if self.at else ""
        which = f" (attempt {self.attempt} of {self.most})" if self.attempt and self.most else ""
        return f"{self.because.waiting}; trying again{when}{which}."
