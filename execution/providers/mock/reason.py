"""Why the mock answers, and how a real model comes to: true for each way in which a bot gets it."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from execution.providers import registry

_SOMEBODY_ELSE = "With another provider in this bot's settings, a real model answers here."


def why(chain: Sequence[str]) -> str:
    """Return it for a bot with this chain of providers; the chain is empty where nobody says which bot it is."""
    if registry.FALLBACK not in chain:
        lacks = registry.lacking(chain)
        return f"I stand in, as none of this bot's providers can be used here. {lacks}" if lacks else _SOMEBODY_ELSE
    before = chain[: chain.index(registry.FALLBACK)]
    if not before:
        return f"This bot's settings name me as its first provider. {_instead()}"
    if lacks := registry.lacking(before):
        return f"I am the next in this bot's chain, as {' and '.join(before)} cannot be used here. {lacks}"
    return f"I am the next in this bot's chain while {' and '.join(before)} cannot answer; the page Logins says why."


def _instead() -> str:
    """Return which providers could answer instead, or what the usual one lacks."""
    others = [name for name in settings.FLEET_PROVIDERS if name != registry.FALLBACK]
    ready = [name for name in others if not registry.get(name).check()]
    if ready:
        return f"A real model answers here once an administrator names {' or '.join(ready)} before me."
    return (
        f"A real model answers here once an administrator names {others[0]} before me. {registry.lacking(others[:1])}"
    )
