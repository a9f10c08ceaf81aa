"""Masks known secrets by value wherever text leaves the process: logs, errors, stored output of a CLI."""

from __future__ import annotations

import threading
from typing import Any

MASK = "[secret]"
_SHORTEST = 8  # masking shorter values would black out ordinary words
_known: tuple[str, ...] = ()  # the longest first, as one secret may begin with another
_lock = threading.Lock()


def register(secret: str) -> None:
    """Remember a secret so that `mask` hides it from now on."""
    global _known
    if len(secret) >= _SHORTEST:
        with _lock:
            _known = tuple(sorted({*_known, secret}, key=len, reverse=True))


def mask(text: str) -> str:
    """Return `text` with every known secret replaced."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def mask_event(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Mask every text of a log entry, however deep (a structlog processor)."""
    return {key: _masked(value) for key, value in event.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return tuple(_masked(inner) for inner in value) if isinstance(value, tuple) else value
