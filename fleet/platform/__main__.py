"""`python -m fleet.platform up | stop | reset`."""

from __future__ import annotations

import sys

from fleet.platform.installation import Installation
from fleet.platform.launch import StartFailed, up
from fleet.platform.leftovers import StillThere
from fleet.platform.preflight import NotReady
from fleet.platform.presence import reset, stop
from fleet.platform.process import ServerFailed

COMMANDS = {"up": up, "stop": stop, "reset": reset}


def main(arguments: list[str]) -> int:
    """Run one command; 0, 1 after one sentence on stderr, or 2 for a command that does not exist."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)  # noqa: T201 - this is the terminal's program
        return 2
    try:
        COMMANDS[arguments[0]](Installation.from_environment())
    except (NotReady, StartFailed, ServerFailed, StillThere, PermissionError, FileNotFoundError, ValueError) as failure:
        print(failure, file=sys.stderr)  # noqa: T201 - this is the terminal's program
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
