"""The providers of this installation, by name, as `FLEET_PROVIDERS` lists them: a class, with what it is made for behind a colon."""

from __future__ import annotations

from collections.abc import Sequence
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


def lacking(chain: Sequence[str]) -> str:
    """Return why no provider of a chain can be used here and what to do, empty when one can be or the chain names none."""
    known = [name for name in chain if name in settings.FLEET_PROVIDERS]
    if chain and not known:
        return f"There is no provider called {chain[0]} here. An administrator can choose another one for the bot."
    said = [get(name).check() for name in known]
    return said[0] if said and all(said) else ""


def usable(chain: list[str]) -> list[ExecutionProvider]:
    """Return the providers of a bot's chain that can be used here, in its order; the mock when none can."""
    found = [get(name) for name in chain if name in settings.FLEET_PROVIDERS]
    return [provider for provider in found if not provider.check()] or [get(FALLBACK)]
