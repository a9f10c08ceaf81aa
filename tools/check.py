"""Everything `make check` looks at, one line each; what a failing check said follows its line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MANAGE = [sys.executable, "manage.py"]
# Tokens, keys and passwords in URLs; not merely random-looking text, which here is always the hash of a file.
SCAN = [str(BIN / "detect-secrets-hook"), "--no-verify", "--disable-plugin", "HexHighEntropyString",
        "--disable-plugin", "Base64HighEntropyString"]  # fmt: skip
LOCKS = ("uv.lock", "package-lock.json")


@dataclass(frozen=True)
class Check:
    """One command that must succeed."""

    name: str
    command: list[str]
    environment: dict[str, str]

    def run(self) -> tuple[bool, str]:
        """Run it; return whether it succeeded, and the report."""
        began = time.monotonic()
        done = subprocess.run(self.command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        line = f"{self.name:<12} {'FAILED' if done.returncode else 'ok':<7} {time.monotonic() - began:5.1f} s"
        said = f"\n{(done.stdout + done.stderr).strip()}" if done.returncode else ""
        return done.returncode == 0, line + said


def main(chosen: list[str]) -> int:
    """Run all checks, or those named, on all processors; 1 when one failed."""
    with tempfile.TemporaryDirectory(prefix="fleet-check-") as var, ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = [check for check in checks(Path(var)) if not chosen or check.name in chosen]
        succeeded = True
        for well, report in pool.map(Check.run, wanted):
            print(report, flush=True)
            succeeded = succeeded and well
    return 0 if succeeded else 1


def checks(var: Path) -> Iterator[Check]:
    """Yield the checks, the longest first."""
    key = os.urandom(48).hex()  # signs nothing
    here = {**os.environ, "FLEET_VAR": str(var), "FLEET_SECRET_KEY": key, "PYTHONWARNINGS": "ignore::RuntimeWarning"}
    host = {**here, "DJANGO_SETTINGS_MODULE": "fleet.settings.base", "FLEET_PUBLIC_URL": "https://fleet.example"}
    yield Check("types", [tool("mypy"), "."], here)
    yield Check("lint", [tool("ruff"), "check", "."], here)
    yield Check("format", [tool("ruff"), "format", "--check", "."], here)
    yield Check("ladder", [tool("lint-imports")], here)
    yield Check("deployment", [*MANAGE, "check", "--deploy", "--fail-level", "WARNING"], host)
    yield Check("migrations", [*MANAGE, "makemigrations", "--check", "--dry-run"], here)
    yield Check("diagrams", [*MANAGE, "state_diagrams", "--check"], here)
    if templates := tracked("*.html"):
        yield Check("templates", [tool("djade"), "--check", *templates], here)
    files = [name for name in tracked() if not name.endswith(LOCKS)]
    yield Check("secrets", [*SCAN, "--disable-plugin", "KeywordDetector", *files], here)
    # In tests a variable called password holds a made-up one; everywhere else it is worth a look.
    yield Check("passwords", [*SCAN, *(name for name in files if not name.startswith(("tests/", "bench/")))], here)
    yield Check(
        "compose", [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"], here
    )


def tracked(pattern: str = "*") -> list[str]:
    """Return the files git knows and the work tree has."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", pattern], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def tool(name: str) -> str:
    """Return the path of a development tool in the project's environment."""
    return str(BIN / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
