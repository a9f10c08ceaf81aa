"""Everything `make check` looks at, one line each; what a failing check said follows its line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MANAGE = [sys.executable, "manage.py"]
# Tokens, keys and passwords in URLs; not merely random-looking text, which here is always the hash of a file.
SCAN = [str(BIN / "detect-secrets-hook"), "--no-verify", "--disable-plugin", "HexHighEntropyString",
        "--disable-plugin", "Base64HighEntropyString"]  # fmt: skip
LOCKS = ("uv.lock", "package-lock.json")


def main(chosen: list[str]) -> int:
    """Run all checks, or those named; 1 when one failed."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fleet-check-") as var:
        for name, command, environment in checks(Path(var)):
            if chosen and name not in chosen:
                continue
            began = time.monotonic()
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            failed += done.returncode != 0
            word = "ok" if done.returncode == 0 else "FAILED"
            print(f"{name:<14} {word:<7} {time.monotonic() - began:5.1f} s", flush=True)
            if done.returncode != 0:
                print((done.stdout + done.stderr).strip(), flush=True)
    return 1 if failed else 0


def checks(var: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yield name, command and environment of each check."""
    here = {**os.environ, "FLEET_VAR": str(var), "PYTHONWARNINGS": "ignore::RuntimeWarning"}
    host = {**here, "DJANGO_SETTINGS_MODULE": "fleet.settings.base", **production_host()}
    yield "lint", [tool("ruff"), "check", "."], here
    yield "format", [tool("ruff"), "format", "--check", "."], here
    yield "types", [tool("mypy"), "."], here
    yield "ladder", [tool("lint-imports")], here
    yield "deployment", [*MANAGE, "check", "--deploy", "--fail-level", "WARNING"], host
    yield "migrations", [*MANAGE, "makemigrations", "--check", "--dry-run"], here
    yield "diagrams", [*MANAGE, "state_diagrams", "--check"], here
    if templates := tracked("*.html"):
        yield "templates", [tool("djade"), "--check", *templates], here
    files = [name for name in tracked() if not name.endswith(LOCKS)]
    yield "secrets", [*SCAN, "--disable-plugin", "KeywordDetector", *files], here
    # In tests a variable called password holds a made-up one; everywhere else it is worth a look.
    yield "passwords", [*SCAN, *(name for name in files if not name.startswith(("tests/", "bench/")))], here
    yield "compose", [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"], here


def production_host() -> dict[str, str]:
    """Return the variables of a host as docs and docker-compose.yml set one up; the key signs nothing."""
    return {"FLEET_PUBLIC_URL": "https://fleet.example", "FLEET_SECRET_KEY": os.urandom(48).hex()}


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
