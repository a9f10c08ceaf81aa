"""What a sandbox sees of /etc: one directory with copies of the few files that programs need, since every mount costs a start time."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

ETC = Path("/etc")
# Seen from inside as well: a link into it stays one. A CLI that finds no zone's name in the link /etc/localtime compares it with the
# files of all zones, for 15 ms.
SEEN = Path("/usr")
KEPT_SECONDS = 24 * 3600.0  # after its last use a copy is still there for the sandboxes that were started with it
# What programs need to run, to know names and times, and to trust certificates. No shadow, no keys, no host's secrets.
NAMES = (
    *("passwd", "group", "nsswitch.conf", "hosts", "host.conf", "gai.conf", "resolv.conf", "protocols", "services"),
    *("localtime", "timezone", "locale.conf", "mime.types", "magic", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("ssl/certs", "ssl/openssl.cnf", "ca-certificates", "pki/tls", "pki/ca-trust", "crypto-policies", "alternatives"),
)


def directory() -> Path:
    """Return the directory that stands for /etc inside; copied anew when something it is made of has changed."""
    place = Path(settings.FLEET_RUNTIME_DIR) / "etc"
    wanted = place / _fingerprint()
    if not wanted.is_dir():
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget_old_ones(place)
        _copy(wanted)
    os.utime(wanted)  # the time of its last use
    return wanted


def _sources() -> Iterator[tuple[str, Path]]:
    for name in NAMES:
        path = (ETC / name).resolve()
        if path.exists():
            yield name, path


def _stays_a_link(name: str, path: Path) -> bool:
    return (ETC / name).is_symlink() and path.is_relative_to(SEEN)


def _fingerprint() -> str:
    """Return a name for the state of all sources: a file that is written anew, and a directory in which one comes or goes, change it."""
    states = ((name, path, path.stat()) for name, path in _sources())
    seen = [
        (name, str(path), _stays_a_link(name, path), state.st_ino, state.st_mtime_ns, state.st_size)
        for name, path, state in states
    ]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def _copy(wanted: Path) -> None:
    """Make the copy in one step: another worker may be at it as well, and whoever comes second has nothing to do."""
    making = Path(tempfile.mkdtemp(dir=wanted.parent))
    for name, path in _sources():
        target = making / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if _stays_a_link(name, path):
            target.symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, target, symlinks=True)
        else:
            shutil.copy2(path, target)
    making.chmod(0o755)
    try:
        making.rename(wanted)
    except OSError:
        shutil.rmtree(making, ignore_errors=True)


def _forget_old_ones(place: Path) -> None:
    for old in place.iterdir():
        if time.time() - old.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
