"""The providers of this installation, by name, as `FLEET_PROVIDERS` lists them."""

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
    path = settings.FLEET_PROVIDERS.get(name)
    if path is None:
        known = ", ".join(sorted(settings.FLEET_PROVIDERS))
        raise NotFound(f"There is no provider “{name}”.", next_step=f"Known are: {known}.")
    provider: ExecutionProvider = import_string(path)()
    return provider


def first_usable(chain: list[str]) -> ExecutionProvider:
    """Return the first provider of a bot's chain that can be used here; the mock when none can."""
    for name in chain:
        if name in settings.FLEET_PROVIDERS and not get(name).check():
            return get(name)
    return get(FALLBACK)
