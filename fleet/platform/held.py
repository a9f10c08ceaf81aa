"""`python -m fleet.platform.held STAMP PROGRAM ...`: a service that begins to work only once the schema is there.

Loading the code takes longer than anything else at a start. So while `prepare` makes the schema the services load
theirs, one after the other to leave `prepare` a processor, and wait for the stamp that `make run` writes after it.
"""

from __future__ import annotations

import fcntl
import runpy
import sys
import time
from pathlib import Path


def main(stamp: Path, program: list[str]) -> None:
    """Wait for `stamp`, then be `program`: `-m module ...` or `file.py ...`."""
    if not stamp.exists():
        with stamp.with_suffix(".turn").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            load()
        while not stamp.exists():
            time.sleep(0.05)
    become(program)


def load() -> None:
    """Import what every service needs."""
    import django

    django.setup()


def become(program: list[str]) -> None:
    """Run `program` in this process."""
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
