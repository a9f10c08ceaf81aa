"""The platforms that need a gateway process, and where their adapters are; each is imported when its first account appears."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from django.utils.module_loading import import_string

from gateways.ports import Adapter, Surroundings
from gateways.states import Platform

ADAPTERS = {
    Platform.TELEGRAM: "gateways.telegram.adapter.TelegramAdapter",
}


def load(platform: str, surroundings: Surroundings) -> Adapter:
    """Return a new adapter for `platform`; KeyError for a platform that needs no process."""
    factory = cast(Callable[[Surroundings], Adapter], import_string(ADAPTERS[Platform(platform)]))
    return factory(surroundings)
