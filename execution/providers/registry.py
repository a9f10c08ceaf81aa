"""The providers of this installation, by name, as `FLEET_PROVIDERS` lists them: a class, with what it is made for behind a colon."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string

from execution.ports import ExecutionProvider
from fleet.kernel.exceptions import NotFound

FALLBACK = "mock"


def get(name: str) -> ExecutionProvider:
    """Return the provider of this name, made once per process for what the settings name. Raises NotFound."""
    return kept(path_of(name))


def make(name: str) -> ExecutionProvider:
    """Return a provider of this name that nobody else has, made for the settings as they are now. Raises NotFound."""
    return built(path_of(name))


def path_of(name: str) -> str:
    """Return what the settings say a provider is made of. Raises NotFound."""
    path: str | None = settings.FLEET_PROVIDERS.get(name)
    if path is None:
        known = ", ".join(sorted(settings.FLEET_PROVIDERS))
        raise NotFound(f"There is no provider “{name}”.", next_step=f"Known are: {known}.")
    return path


def built(path: str) -> ExecutionProvider:
    """Return a provider made of a class's path and what stands behind its colon."""
    path, _, agent = path.partition(":")
    provider: ExecutionProvider = import_string(path)(*([agent] if agent else []))
    return provider


# By what it is made of and not by name: one that the settings give anew, or no longer, is not answered from memory.
kept = cache(built)


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
