"""What a bot's settings may be: each rule stands here once, for the forms, the actions and the database alike."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.deconstruct import deconstructible

MOST_HOSTS = 200
_A_NAME = "write a name such as api.example.com, with a port behind a colon where it is not 80 or 443"
_PRINTED = re.compile(r"[!-~]+")  # what reads addresses passes over line breaks and the like
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a number may be: `least` to `most`, and zero where `zero` says what that means. `because` ends the sentence."""

    name: str
    least: int
    most: int
    unit: str
    because: str
    zero: str = ""

    def allows(self, value: int) -> bool:
        """Return whether a number is within it."""
        return self.least <= value <= self.most or (value == 0 and bool(self.zero))

    def condition(self, column: str) -> str:
        """Return it in SQL."""
        within = f"{column} BETWEEN {self.least} AND {self.most}"
        return f"({within} OR {column} = 0)" if self.zero else f"({within})"

    @property
    def sentence(self) -> str:
        """Return what to write instead."""
        zero = f", or 0 for {self.zero}" if self.zero else ""
        return f"{self.name}: choose {self.least} to {self.most} {self.unit}{zero}; {self.because}."


BOUNDS: dict[str, Bound] = {
    "max_turns": Bound(
        "Max turns", 1, 1000, "model turns for one message", "without one nothing is said, and more is a circle"
    ),
    "max_minutes": Bound(
        "Max minutes", 1, 24 * 60, "minutes for one message", "what takes longer than a day is better asked in parts"
    ),
    "max_tool_calls": Bound(
        "Max tool calls", 1, 10_000, "tool calls for one message", "more is a circle", zero="a bot that uses no tools"
    ),
    "max_megabytes": Bound(
        "Max megabytes", 512, 1024 * 1024, "MB for one message", "a CLI alone takes some 280 MB", zero="no limit"
    ),
    "concurrency": Bound(
        "Concurrency", 1, 100, "conversations at once", "a bot that is to answer nobody can be paused instead"
    ),
    "prewarmed": Bound(
        "Prewarmed", 1, 10, "processes kept ready in each worker", "each takes some 280 MB", zero="none"
    ),
}


@deconstructible
class Sensible:
    """Checks a number of a bot's settings against its bound, by the field's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, value: int) -> None:
        """Raise ValidationError with the bound."""
        if not BOUNDS[self.name].allows(value):
            raise ValidationError(BOUNDS[self.name].sentence, code="not_sensible")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sensible) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


def validate_host(text: str) -> None:
    """Raise ValidationError unless this is a host as an allowlist names it: `api.example.com`, `*.example.com`, `10.0.0.5:8443`,
    `[fd00::1]`.
    """
    if why := _no_host(text):
        raise ValidationError(f"“{text[:80]}” is no host: {why}.", code="no_host")


def _no_host(text: str) -> str:
    """Return what is wrong with a host, and what to write; empty when nothing is."""
    if "://" in text:
        return "leave out the scheme, as in api.example.com"
    if "/" in text:
        is_range = text.rpartition("/")[2].isdigit()
        return "a range is not taken, write each address" if is_range else "leave out the path, as in api.example.com"
    if not _PRINTED.fullmatch(text):
        return _A_NAME
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        return "a port is a number from 1 to 65535, an IPv6 address stands in brackets, as in [fd00::1]:443"
    if port == 0 or text.endswith(":"):
        return "a port is a number from 1 to 65535"
    if parts.username is not None or (text != text.lower()):
        return "write it in lower case and without a name to sign in with"
    return _no_address(parts.hostname or "") if text.startswith("[") else _no_name(parts.hostname or "")


def _no_address(host: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return "in brackets stands an IPv6 address, as in [fd00::1]"
    return ""


def _no_name(host: str) -> str:
    suffix = host.removeprefix("*.")
    labels = suffix.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return _A_NAME
    # What ends in a number is an address to whoever connects, however it is written: 127.1 and 2130706433 are this machine.
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        return _no_ipv4(host)
    if suffix != host and len(labels) < 2:
        return "it is half of the internet; write *.example.com, or choose the policy “open”"
    return ""


def _no_ipv4(host: str) -> str:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return "an address has four numbers from 0 to 255, as 10.0.0.5, and no pattern"
    return ""


def validate_hosts(hosts: Sequence[str]) -> None:
    """Raise ValidationError for a list that nobody can oversee, or that says something twice."""
    if len(hosts) > MOST_HOSTS:
        raise ValidationError(
            f"There are {len(hosts)} hosts and may be {MOST_HOSTS}. Use patterns such as *.example.com, or the policy “open”."
        )
    _each_once(hosts)


def validate_chain(chain: Sequence[str]) -> None:
    """Raise ValidationError for a provider that is to follow itself."""
    _each_once(chain)


def _each_once(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValidationError(f"{', '.join(twice)} is there twice. Name it once.", code="twice")


def validate_network(*, network: str, allowed_hosts: Sequence[str]) -> None:
    """Raise ValidationError for an allowlist that lists nobody."""
    if network == "allowlist" and not allowed_hosts:
        raise ValidationError(
            {
                "network": "The allowlist is empty. Name at least one of the allowed hosts, or choose “Its provider only”."
            }
        )


def unknown_providers(chain: Iterable[str]) -> str:
    """Return which of these providers this installation does not have, for a sentence; empty when it has all of them."""
    return ", ".join(name for name in chain if name not in settings.FLEET_PROVIDERS)


def validate_names(*, provider_chain: Iterable[str], timezone: str) -> None:
    """Raise ValidationError for what this installation does not have: such a bot would answer with the mock, or at no time."""
    wrong = {}
    if unknown := unknown_providers(provider_chain):
        known = ", ".join(settings.FLEET_PROVIDERS)
        wrong["provider_chain"] = f"There is no provider called {unknown}. There are: {known}."
    if timezone not in available_timezones():
        wrong["timezone"] = f"There is no time zone called {timezone}. They are named like Europe/Paris."
    if wrong:
        raise ValidationError(wrong)
