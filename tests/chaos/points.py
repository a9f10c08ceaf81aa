"""Where a drill strikes: at which stage of a turn, and which process."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

STAGES = ("queued", "starting", "released", "text", "tool", "closing", "warm")
VICTIMS = ("worker", "shim", "cli", "cli and worker", "database", "hints")
SERVERS = {"database": "postgres", "hints": "valkey"}  # the service of the product that is meant
MOST_JITTER = 0.06  # seconds after the stage was seen; the stages themselves last from 10 ms to a second
# The worker's pool is threads, so it has no child that Celery would fork: its children are the shims.


@dataclass(frozen=True, slots=True)
class Point:
    """One strike: `stage` is waited for, then `jitter` seconds pass, then `victim` gets SIGKILL."""

    stage: str
    victim: str
    jitter: float

    @property
    def works(self) -> bool:
        """Return whether the bot is to call a tool: only then there is a moment in which one runs."""
        return self.stage == "tool"


def points(rounds: int, seed: int) -> Iterator[Point]:
    """Return the points of so many rounds: every pair of stage and victim in random order, again and again."""
    chance = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    for _ in range(rounds):
        if not pairs:
            pairs = list(itertools.product(STAGES, VICTIMS))
            chance.shuffle(pairs)
        stage, victim = pairs.pop()
        yield Point(stage, victim, chance.uniform(0, MOST_JITTER))


def strike(targets_of: Callable[[], list[psutil.Process]], *, patience: float = 5.0) -> str:
    """Kill what is found; return what was hit, empty when there was nothing of the kind."""
    until = time.monotonic() + patience
    while not (targets := targets_of()):
        if time.monotonic() > until:
            return ""
        time.sleep(0.005)
    hit = []
    for process in targets:
        try:
            process.kill()
            hit.append(str(process.pid))
        except psutil.NoSuchProcess:
            continue
    return "+".join(hit)


def servers(found: list[psutil.Process]) -> list[psutil.Process]:
    """Return those of a server's processes that have no other one above them: the one that started the rest."""
    pids = {process.pid for process in found}
    return [process for process in found if process.is_running() and process.ppid() not in pids]


def targets(victim: str, worker: psutil.Process, shim: int | None) -> list[psutil.Process]:
    """Return the processes of a turn that are meant.

    `shim` is the one of the turn, as soon as that is known; before, the newest below the worker is taken for it.
    """
    if victim == "worker":
        return [worker]
    found = _newest_cli(worker, shim)
    if found is None:
        return []
    its_shim, cli = found
    return {"shim": [its_shim], "cli": [cli], "cli and worker": [cli, worker]}[victim]


def _newest_cli(worker: psutil.Process, shim: int | None) -> tuple[psutil.Process, psutil.Process] | None:
    """Return the shim, this one or any below the worker, and the CLI that was started last below it."""
    found = []
    try:
        shims = worker.children() if shim is None else [psutil.Process(shim)]
        for each in shims:
            found += [(each, below) for below in each.children(recursive=True) if _is_cli(below)]
        return max(found, key=lambda pair: pair[1].create_time(), default=None)
    except psutil.NoSuchProcess:
        return None


def _is_cli(process: psutil.Process) -> bool:
    try:
        return process.name() in ("claude", "codex")
    except psutil.NoSuchProcess:
        return False
