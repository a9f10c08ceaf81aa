"""Directories of a bot's home over which something is mounted for one of its CLIs: they are mounts in every sandbox of the bot.

What is a mount can be neither renamed nor removed, but only by those who see it as one. A tool of another CLI of the same bot could take it
away, with what Fleet had mounted over it, from a process that relies on it, or leave a link there, which the next mount would follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

NAMES = (".claude", ".claude/projects", ".codex", ".codex/sessions", ".codex/fleet-threads")


def places(home: Path) -> tuple[Path, ...]:
    """Return them all, outermost first."""
    return tuple(home / name for name in NAMES)


def pins(home: Path, *, mounted: Iterable[Path], covered: Iterable[Path]) -> tuple[Path, ...]:
    """Return those still to be mounted, on themselves: not what is `mounted` anyway, nor what lies in a place that is `covered`."""
    hidden = set(covered)
    there = hidden | set(mounted)
    return tuple(path for path in places(home) if path not in there and hidden.isdisjoint(path.parents))
