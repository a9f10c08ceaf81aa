"""Run benchmarks and print their figures as a Markdown table."""

from __future__ import annotations

import importlib
import sys

from bench.figures import HEADER, keep

ALL = ["startup", "messages", "warm", "crowd", "kill", "trees", "lost", "pages", "path"]


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all of them."""
    print(HEADER)
    for name in names or ALL:
        figures = importlib.import_module(f"bench.{name}").run()
        keep(name, figures)
        for figure in figures:
            print(figure.row(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
