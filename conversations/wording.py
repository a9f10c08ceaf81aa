"""What people are told of logins that cannot be used now, in their own time zone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from zoneinfo import ZoneInfo

from execution.queries import Shut
from execution.states import Cause
from fleet.kernel import clock
from identities.models import Person

_SOON = dt.timedelta(minutes=2)
_REASONS = {
    Cause.USAGE_LIMIT: "{name}'s login has reached its limit",
    Cause.RATE_LIMIT: "{name} takes no more from our login for the moment",
    Cause.BILLING: "{name}'s account has no credit left",
    Cause.AUTH: "{name} does not accept our login, which an administrator has to put right",
    Cause.OVERLOADED: "{name} is overloaded",
    Cause.SERVER_FAULT: "{name}'s servers have a fault",
    Cause.UNREACHABLE: "{name} cannot be reached",
    Cause.NETWORK: "{name} cannot be reached from this machine",
    Cause.POLICY: "the bot's network policy keeps it from {name}",
}
_NAMES_ITS_MOMENT = (Cause.USAGE_LIMIT,)


def moment(at: dt.datetime, person: Person | None) -> str:
    """Return `15:00`, or `28 November 15:00` on another day, in the person's time zone."""
    zone = ZoneInfo(person.timezone) if person else ZoneInfo("UTC")
    there, now = at.astimezone(zone), clock.now().astimezone(zone)
    told = f"{there:%H:%M}" if there.date() == now.date() else f"{there.day} {there:%B %H:%M}"
    return told if person else f"{told} UTC"


def _reason(shut: Shut, person: Person | None) -> str:
    cause = Cause(shut.cause)
    text = _REASONS.get(cause, "{name} cannot answer").format(name=shut.provider.capitalize())
    return f"{text} until {moment(shut.until, person)}" if cause in _NAMES_ITS_MOMENT else text


def reasons(shut: Collection[Shut], person: Person | None) -> str:
    """Return why these logins are not used, as the beginning of a sentence."""
    return ", and ".join(_reason(one, person) for one in shut)


def meanwhile(shut: Collection[Shut], answers: str, person: Person | None) -> str:
    """Return the sentence that says who answers instead of whom."""
    return f"{reasons(shut, person)}; {answers.capitalize()} answers meanwhile."


def waits(shut: Collection[Shut], until: dt.datetime | None, person: Person | None) -> str:
    """Return what the person is told whose message waits until then; without a moment, only why."""
    why = f"{reasons(shut, person)}."
    if until is None:
        return why
    left = until - clock.now()
    when = f"in {max(round(left.total_seconds()), 1)} seconds" if left < _SOON else f"at {moment(until, person)}"
    return f"{why} Your message waits and is taken up again by itself {when}; /stop takes it back."
