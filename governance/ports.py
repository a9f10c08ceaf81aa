"""What governance needs from the apps above: a list of what is alive, so that an order knows what it has to see quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

# Given an order's scope and scope id, yields the subjects of one kind that are alive within it.
StopTarget = Callable[[str, str], Iterable[str]]

_targets: dict[str, StopTarget] = {}


def register_stop_target(kind: str, alive: StopTarget) -> None:
    """Register who knows what is alive of this kind (process, queue, channel); a second call replaces the first."""
    _targets[kind] = alive


def alive_within(scope: str, scope_id: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, subject) of everything that an order of this scope has to silence."""
    for kind, alive in _targets.items():
        yield from ((kind, str(subject)) for subject in alive(scope, scope_id))
