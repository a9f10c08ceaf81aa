"""`manage.py chaos execution`: kill real processes at random points and count what must never happen."""

from __future__ import annotations

import importlib
import secrets
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from fleet.management.usage import SpeakingCommand

DRILLS = ("execution",)


class Command(SpeakingCommand):
    """It starts a product of its own and never touches the one that runs from var/. Exit code 1 when anything was counted."""

    help = (
        "Drill on a product of its own: SIGKILL at random points, then count lost, doubled, orphans and wrong ledgers."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("drill", choices=DRILLS)
        parser.add_argument("--rounds", type=int, default=50, help="how many strikes (default 50, about eight minutes)")
        parser.add_argument("--seed", type=int, help="repeat the strikes of an earlier drill; it prints its seed")

    def handle(self, *args: Any, **options: Any) -> None:
        """Drill and report."""
        if options["rounds"] < 1:
            raise CommandError("--rounds takes a number from 1 on.")
        try:
            drill = importlib.import_module(f"tests.chaos.{options['drill']}")
        except ModuleNotFoundError as missing:
            raise CommandError(
                f"{missing}. A drill needs the emulators and development packages: run `make setup-dev` in a checkout, "
                "then .venv/bin/python manage.py chaos."
            ) from missing
        seed = secrets.randbelow(10**6) if options["seed"] is None else options["seed"]
        self.stdout.write(f"{options['rounds']} rounds, seed {seed}")
        verdict = drill.run(rounds=options["rounds"], seed=seed, tell=self._tell)
        self.stdout.write("\n".join(verdict.lines()))
        sys.exit(0 if verdict.is_clean else 1)

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
