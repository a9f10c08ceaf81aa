"""A name for a key or a token: it tells one from another, and nothing else about it."""

from __future__ import annotations

from django.utils.crypto import salted_hmac


def name_of(secret: str) -> str:
    """Return twelve characters that change with `secret`; from them nobody finds it."""
    return salted_hmac("execution.login", secret, algorithm="sha256").hexdigest()[:12]
