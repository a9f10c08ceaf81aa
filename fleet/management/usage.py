"""Commands that say by their exit code what happened. 64 means that the command itself was typed wrongly (sysexits.h)."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError

from fleet.kernel.commands import FleetCommand

BAD_USAGE = 64


def seconds(text: str) -> float:
    """Return a positive number of seconds, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= 86_400:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and 86400")
    return number


class SpeakingCommand(FleetCommand):
    """A command whose exit codes below 64 belong to its outcome."""

    # Models and URLs are checked by `make check`; an operator's command has to start at once.
    requires_system_checks: list[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Run, with 64 instead of argparse's 2 for bad usage."""
        self._called_from_command_line = True
        try:
            self.create_parser(argv[0], argv[1]).parse_args(argv[2:])
        except SystemExit as exit:
            sys.exit(BAD_USAGE if exit.code == 2 else exit.code)
        super().run_from_argv(argv)
