"""The providers of this installation, by name, as `FLEET_PROVIDERS` lists them: a class, with what it is made for behind a colon."""

from __future__ import annotations

from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string

from execution.ports import ExecutionProvider
from fleet.kernel.exceptions import NotFound

FALLBACK = "mock"


@cache
def get(name: str) -> ExecutionProvider:
    """Return the provider of this name, made once per process. Raises NotFound."""
    return make(name)


def make(name: str) -> ExecutionProvider:
    """Return a provider of this name that nobody else has, made for the settings as they are now. Raises NotFound."""
    path = settings.FLEET_PROVIDERS.get(name)
    if path is None:
        known = ", ".join(sorted(settings.FLEET_PROVIDERS))
        raise NotFound(f"There is no provider “{name}”.", next_step=f"Known are: {known}.")
    path, _, agent = path.partition(":")
    provider: ExecutionProvider = import_string(path)(*([agent] if agent else []))
    return provider


def usable(chain: list[str]) -> list[ExecutionProvider]:
    """Return the providers of a bot's chain that can be used here, in its order; the mock when none can."""
    found = [get(name) for name in chain if name in settings.FLEET_PROVIDERS]
    return [provider for provider in found if not provider.check()] or [get(FALLBACK)]
