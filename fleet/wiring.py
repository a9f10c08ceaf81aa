"""Where ports meet adapters: the only place that knows both sides."""

from __future__ import annotations


def connect() -> None:
    """Connect every app with what it needs from outside. Called once, when Django is ready."""
