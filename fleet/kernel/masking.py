"""Masks known secrets by value wherever text leaves the process: logs, errors, stored output of a CLI."""

from __future__ import annotations

import threading
from typing import Any

MASK = "[secret]"
_SHORTEST = 8  # masking shorter values would black out ordinary words
_known: set[str] = set()
_lock = threading.Lock()


def register(secret: str) -> None:
    """Remember a secret so that `mask` hides it from now on."""
    if len(secret) >= _SHORTEST:
        with _lock:
            _known.add(secret)


def mask(text: str) -> str:
    """Return `text` with every known secret replaced."""
    for secret in tuple(_known):
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def mask_event(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Mask every text of a log entry (a structlog processor)."""
    return {key: mask(value) if isinstance(value, str) else value for key, value in event.items()}
