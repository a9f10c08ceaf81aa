"""One measured number, and how it is shown and kept."""

from __future__ import annotations

import importlib
import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """A number with its unit; `target` is the most it may be, `baseline` what the peer or the bare part took in the same run."""

    name: str
    value: float
    unit: str
    target: float | None = None
    baseline: float | None = None
    note: str = ""

    @property
    def met(self) -> str:
        """Return yes, no, or a dash where there is no target."""
        if self.target is None:
            return "–"
        return "yes" if self.value <= self.target else "**no**"

    def row(self) -> str:
        """Return the figure as a Markdown row."""
        cells = [
            self.name,
            f"{self.value:,.1f} {self.unit}",
            _or_dash(self.target),
            _or_dash(self.baseline),
            self.met,
            self.note,
        ]
        return "| " + " | ".join(cells) + " |"


def _or_dash(number: float | None) -> str:
    return "–" if number is None else f"{number:,.1f}"


HEADER = "| What | Measured | Target ≤ | Baseline | Met | Note |\n| --- | ---: | ---: | ---: | --- | --- |"


def measure(name: str) -> None:
    """Run one benchmark in this process, keep its figures and print their rows."""
    figures = importlib.import_module(f"bench.{name}").run()
    keep(name, figures)
    for figure in figures:
        print(figure.row(), flush=True)


def keep(name: str, figures: Iterable[Figure]) -> None:
    """Write the figures of one benchmark to results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    body = {"machine": f"{platform.machine()}, {platform.system()}", "figures": [asdict(figure) for figure in figures]}
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def p50(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-95 * len(ordered) // 100) - 1)]
