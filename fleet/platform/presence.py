"""One Fleet per `var`: holding it, stopping the one that holds it, and emptying it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fleet.platform import preflight
from fleet.platform.embedded import EmbeddedPostgres, EmbeddedValkey
from fleet.platform.installation import Installation
from fleet.platform.private import make_private
from fleet.platform.terminal import say, shown


@contextlib.contextmanager
def only_one(here: Installation) -> Iterator[None]:
    """Hold this `var` for us: two supervisors over one database would fight."""
    make_private(here.supervisor)
    path = _lock_path(here)
    path.touch(mode=0o600)
    with path.open("r+") as lock:
        if not _take(lock):
            pid, _, url = lock.read().partition(" ")
            raise preflight.NotReady(
                f"Fleet already runs from {shown(here.var)} (process {pid}) at {url}: use it, or stop it with `make stop`."
            )
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()} {here.url}")
        lock.flush()
        yield


def stop(here: Installation) -> None:
    """Ask the Fleet of this `var` to stop, and return when it has."""
    path = _lock_path(here)
    if path.exists():
        with path.open("r+") as lock:
            if not _take(lock):
                os.kill(int(lock.read().partition(" ")[0]), signal.SIGTERM)
                fcntl.flock(lock, fcntl.LOCK_EX)
                say("Stopped.")
                return
    say("Fleet is not running.")


def reset(here: Installation) -> None:
    """Remove everything this Fleet knows, after the person has said so in words."""
    if not here.var.exists():
        say("There is nothing to remove.")
        return
    preflight.check_var(here.var)
    with only_one(here):
        say(f"This removes every bot, conversation and key in {shown(here.var)}. Nothing brings them back.")
        if input("Type “remove” to go on: ").strip() != "remove":
            say("Nothing was removed.")
            return
        for server in (EmbeddedValkey(here.var / "valkey"), EmbeddedPostgres(here.var / "postgres")):
            server.end_leftover()
        shutil.rmtree(here.var)
    say("Removed. `make run` begins anew.")


def _lock_path(here: Installation) -> Path:
    return here.supervisor / "up.lock"


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
