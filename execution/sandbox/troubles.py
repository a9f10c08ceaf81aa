"""Whether a bot's provider can be reached at all, as the proxy of its sandbox saw it: a file per session, there while it cannot."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

DIRECTORY = "egress-troubles"
OLD_SECONDS = 24 * 3600.0
POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Which destination was not reached, and why, in words that follow a colon. `kind` is `policy` where we refused it."""

    host: str
    port: int
    kind: str
    why: str

    @property
    def place(self) -> str:
        """Return the destination; the port only where it is an unusual one."""
        return self.host if self.port in (80, 443) else f"{self.host}:{self.port}"


def file(session_id: str) -> Path:
    """Return where the proxy of this session's sandbox notes it, with its directory in place."""
    path = _path(session_id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def trouble_of(session_id: str) -> Trouble | None:
    """Return what keeps this session's CLI from its provider now; None when nothing does that its proxy knows of."""
    try:
        told = json.loads(_path(session_id).read_text())
        return Trouble(str(told["host"]), int(told["port"]), str(told["kind"]), str(told["why"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(session_id: str) -> None:
    """Remove the note: the sandbox is gone, or a new one begins."""
    _path(session_id).unlink(missing_ok=True)


def forget_old() -> None:
    """Remove what was left by sandboxes whose worker was killed."""
    for path in (Path(settings.FLEET_RUNTIME_DIR) / DIRECTORY).glob("*"):
        with suppress(FileNotFoundError):  # its session has just removed it
            if time.time() - path.stat().st_mtime > OLD_SECONDS:
                path.unlink()


def _path(session_id: str) -> Path:
    return Path(settings.FLEET_RUNTIME_DIR) / DIRECTORY / hashlib.sha256(session_id.encode()).hexdigest()[:40]
