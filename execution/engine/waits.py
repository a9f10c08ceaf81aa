"""A provider that waits by itself before it asks its API again: that is no silence, but not to be waited for without end either."""

from __future__ import annotations

import datetime as dt
import time

from execution.outcomes import Ruling, policy_of
from execution.ports import ProviderEvent, TextDelta, ToolFinished, ToolStarted, UsageReported
from execution.retrying import Retrying
from fleet.kernel import clock

_GOES_ON = (TextDelta, ToolStarted, ToolFinished, UsageReported)


class Waits:
    """What is known of the provider's waiting, from its first failed call to the first sign that a call succeeded.

    `until` is when it asks again, by time.monotonic(). `too_long`: all of it together takes longer than `patience` seconds, for
    something that another provider, or a later try of ours, would not have to wait for.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None
        self._told: Retrying | None = None
        self.until = 0.0
        self.too_long = False

    def hear(self, event: ProviderEvent) -> None:
        """Note that it waits, or that it waits no more."""
        if isinstance(event, Retrying):
            self._wait(event)
        elif isinstance(event, _GOES_ON):
            self._since = self._told = None
            self.until, self.too_long = 0.0, False

    def _wait(self, event: Retrying) -> None:
        now = time.monotonic()
        self._told = event
        self._since = now if self._since is None else self._since
        self.until = now + max((event.at - clock.now()).total_seconds(), 0.0) if event.at else now
        self.too_long = policy_of(event.because.cause).fails_over and self.until - self._since > self._patience

    @property
    def because(self) -> Ruling | None:
        """Return why it waits, where that is known to be its login's or its vendor's trouble."""
        known = self._told is not None and policy_of(self._told.because.cause).fails_over
        return self._told.because if self._told and known else None

    @property
    def at(self) -> dt.datetime | None:
        """Return when it would ask again."""
        return self._told.at if self._told else None
