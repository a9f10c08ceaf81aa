"""What a bot's settings may name, beyond what a database can check."""

from __future__ import annotations

from collections.abc import Iterable
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError


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
