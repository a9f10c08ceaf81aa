"""Where the doors of shims are, and the keys to them."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.utils.crypto import salted_hmac


def place_of_doors() -> Path:
    """Return the directory of the doors; nobody else may enter it."""
    path = Path(settings.FLEET_RUNTIME_DIR) / "doors"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def key_of(marker: str) -> str:
    """Return the key to the door of the shim with this marker: every worker of the installation can derive it, nobody else."""
    return salted_hmac("execution.shim.door", marker, algorithm="sha256").hexdigest()
