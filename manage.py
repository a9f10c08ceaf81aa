#!/usr/bin/env python3
"""Fleet's command line. Finds the project's own `.venv`, so plain `./manage.py` works from any shell."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HEADLESS = (["gateways"], ["runner"], ["worker"])  # commands that run for ever and show no page


def use_project_environment() -> None:
    """Re-execute under `.venv/bin/python` unless that is already the interpreter."""
    python = ROOT / ".venv" / "bin" / "python"
    if Path(sys.prefix).resolve() == (ROOT / ".venv").resolve():
        return
    if not python.exists():
        sys.exit("Fleet is not set up yet: there is no .venv here. Run `make setup` (or `make run`) first.")
    os.execv(python, [str(python), *sys.argv])  # noqa: S606 - our own interpreter, no shell


def main() -> None:
    """Run one management command."""
    settings = "headless" if sys.argv[1:2] in HEADLESS else "base"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"fleet.settings.{settings}")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    use_project_environment()
    main()
