"""Run benchmarks and print their figures as a Markdown table."""

from __future__ import annotations

import sys
from multiprocessing import get_context

from bench.figures import HEADER, measure

ALL = ["startup", "messages", "warm", "crowd", "kill", "trees", "lost", "pages", "path"]


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all of them; return 1 when one did not come to its end.

    Each has an interpreter of its own: settings are read once, and memory that one took would count for the next.
    """
    if unknown := sorted(set(names) - {*ALL}):
        print(f"There is no benchmark {', '.join(unknown)}. There are: {', '.join(ALL)}.", file=sys.stderr)
        return 1
    print(HEADER, flush=True)
    failed = [name for name in names or ALL if not measured(name)]
    if failed:
        print(f"Not measured: {', '.join(failed)} (see above).", file=sys.stderr)
    return 1 if failed else 0


def measured(name: str) -> bool:
    """Return whether one benchmark, in a process of its own, came to its end."""
    process = get_context("spawn").Process(target=measure, args=(name,))
    process.start()
    process.join()
    return process.exitcode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
