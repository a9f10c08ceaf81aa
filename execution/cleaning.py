"""What a provider says, as PostgreSQL can store it: an answer that was paid for is not lost over a character or a name too long."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any


def clean(text: str) -> str:
    """Return `text` without NUL, lone surrogates replaced."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def storable(value: Any) -> Any:
    """Return what JSON has, with every text in it clean, also the keys; a number that is none becomes null."""
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(str(key)): storable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [storable(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
    return value


def moment(seconds: Any) -> dt.datetime | None:
    """Return the moment that a provider names by seconds since 1970; None for what is none."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds else None
    except (ValueError, OverflowError, OSError, TypeError):
        return None
