"""What would make a start fail later and darkly, found first and said in one sentence each."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import socket
import time
from pathlib import Path

import psycopg

from fleet.platform.installation import Installation
from fleet.platform.private import make_private

NEEDED_BYTES = 500 * 1024 * 1024
MARKER = "fleet.json"
PRODUCT, FORMAT = "fleet", 1
POSTGRES_MAJOR = "18"
# What Fleet itself puts into a directory that never saw a start: `manage.py` makes its keys there.
OURS = frozenset({"keys", "static", "run", "workspaces"})


class NotReady(RuntimeError):
    """Fleet cannot start here; the text is the sentence for the person."""


def check_place(here: Installation) -> None:
    """Raise `NotReady` for the first thing that keeps data from living in `var`; claim an empty one for Fleet."""
    if not here.database_url:
        check_account()
    check_var(here.var)
    check_disk(free_bytes=shutil.disk_usage(here.var).free, directory=here.var)


def check_account() -> None:
    """PostgreSQL needs a name for the user it runs as; a container may have a bare number."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise NotReady(
            f"User id {os.geteuid()} has no name on this machine, and the embedded PostgreSQL needs one: add it to "
            "/etc/passwd, or set DATABASE_URL to another PostgreSQL."
        ) from None


def check_var(var: Path) -> None:
    """`var` is ours: a directory of this user, empty or marked by a Fleet that is not newer than this one."""
    if not var.exists():
        _claim(var)
    if not var.is_dir():
        raise NotReady(f"{var} is not a directory, so Fleet cannot keep its data there: remove it or set FLEET_VAR.")
    if var.stat().st_uid != os.geteuid():
        owner = _name(var.stat().st_uid)
        raise NotReady(
            f"{var} belongs to {owner}: start Fleet as {owner}, or set FLEET_VAR to a directory of your own."
        )
    if not os.access(var, os.W_OK):
        raise NotReady(f"{var} cannot be written: make it writable, or set FLEET_VAR to another directory.")
    if not (var / MARKER).exists():
        _check_unmarked(var)
        _claim(var)
    _check_marker(var)
    _check_cluster(var)


def check_disk(*, free_bytes: int, directory: Path) -> None:
    """There is room for the database to grow."""
    if free_bytes < NEEDED_BYTES:
        raise NotReady(
            f"Only {free_bytes // 1024**2} MB are free where {directory} is, and Fleet needs "
            f"{NEEDED_BYTES // 1024**2}: free some space, or set FLEET_VAR to another disk."
        )


def check_port(host: str, port: int, *, patience: float = 0.0) -> None:
    """Nobody listens on the console's port, or has let go of it within `patience` seconds."""
    deadline = time.monotonic() + patience
    while (reason := _why_not_bound(host, port)) is not None:
        if reason != errno.EADDRINUSE:
            raise NotReady(
                f"Fleet cannot listen on {host}:{port} ({os.strerror(reason)}): set FLEET_HOST and FLEET_PORT."
            )
        if time.monotonic() >= deadline:
            raise NotReady(
                f"Port {port} is in use by another program: stop that one, or start Fleet with FLEET_PORT={port + 1}."
            )
        time.sleep(0.1)


def check_database(url: str) -> None:
    """The PostgreSQL named in DATABASE_URL lets us in."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise NotReady(
            f"The PostgreSQL in DATABASE_URL does not let Fleet in ({reason}): correct or unset it."
        ) from None


def _claim(var: Path) -> None:
    try:
        make_private(var)
        (var / MARKER).write_text(json.dumps({"product": PRODUCT, "format": FORMAT}) + "\n")
    except OSError as error:
        raise NotReady(f"{var} cannot be made ({error.strerror}): set FLEET_VAR to a directory of your own.") from error


def _check_unmarked(var: Path) -> None:
    foreign = sorted(entry.name for entry in var.iterdir() if entry.name not in OURS)
    if foreign:
        raise NotReady(
            f"{var} holds what is not Fleet's ({', '.join(foreign[:3])}): set FLEET_VAR to an empty directory."
        )


def _check_marker(var: Path) -> None:
    try:
        marker = json.loads((var / MARKER).read_text())
        product, found = marker["product"], int(marker["format"])
    except (OSError, ValueError, KeyError, TypeError):
        product, found = "", 0
    if product != PRODUCT or found < 1:
        raise NotReady(f"{var / MARKER} was not written by Fleet: set FLEET_VAR to an empty directory.")
    if found > FORMAT:
        raise NotReady(
            f"{var} was written by a newer Fleet (format {found}, this one knows {FORMAT}): "
            "bring this checkout up to date, or set FLEET_VAR to another directory."
        )


def _check_cluster(var: Path) -> None:
    version = var / "postgres" / "data" / "PG_VERSION"
    try:
        major = version.read_text().strip()
    except FileNotFoundError:
        return
    if major != POSTGRES_MAJOR:
        raise NotReady(
            f"{version.parent} was written by PostgreSQL {major} and this Fleet brings {POSTGRES_MAJOR}: "
            "bring this checkout up to date, or set FLEET_VAR to another directory."
        )


def _why_not_bound(host: str, port: int) -> int | None:
    """Return the errno of binding `host:port`, or None when that worked."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"
