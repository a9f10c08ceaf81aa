"""What the proxies of this host did not let through, read from the file in which they write it."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

FILE = "egress-refusals.jsonl"
MOST = 50  # places at once; what is beyond is one line more in the log, not in the journal


@dataclass(frozen=True, slots=True)
class Refused:
    """A destination that a bot did not reach, and how many of its sandboxes tried since the file was read last."""

    bot: str
    host: str
    port: int
    why: str
    times: int


def file() -> Path:
    """Return the file, with its directory in place."""
    path = Path(settings.FLEET_RUNTIME_DIR) / FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def taken_refusals() -> list[Refused]:
    """Return what came in since the last time, and empty the file; a worker that dies in between loses a few lines."""
    path = Path(settings.FLEET_RUNTIME_DIR) / FILE
    if not path.exists() or not path.stat().st_size:
        return []
    with path.open("r+") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        lines = opened.read().splitlines()
        opened.truncate(0)
    counted = Counter(place for line in lines if (place := _read(line)))
    return [Refused(*place, times) for place, times in counted.most_common(MOST)]


def _read(line: str) -> tuple[str, str, int, str] | None:
    try:
        told = json.loads(line)
        return str(told["bot"]), str(told["host"]), int(told["port"]), str(told["why"])
    except (ValueError, KeyError, TypeError):
        return None
