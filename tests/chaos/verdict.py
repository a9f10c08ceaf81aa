"""What is counted after a drill. Each of these numbers has to be zero."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from execution import events
from tests.budgets.scenes import WRONG_RESERVATIONS, WRONG_WINDOWS
from tests.chaos.messages import Said
from tests.running_product import World


@dataclass
class Verdict:
    """Lists of sentences, one per finding; `answered` of `asked` is told beside them and is no promise."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    ledgers: list[str] = field(default_factory=list)
    asked: int = 0
    answered: int = 0

    @property
    def is_clean(self) -> bool:
        """Return whether nothing was found."""
        return not (self.lost or self.doubled or self.orphans or self.ledgers)

    def lines(self) -> list[str]:
        """Return the counts and every finding."""
        counts = f"lost {len(self.lost)}, doubled {len(self.doubled)}, orphans {len(self.orphans)}, wrong ledgers {len(self.ledgers)}"
        findings = [*self.lost, *self.doubled, *self.orphans, *self.ledgers]
        told = f"{self.asked} messages, {self.answered} answered, {self.asked - self.answered} told why not"
        return [told, counts, *(f"  - {finding}" for finding in findings)]


def judge_messages(world: World, messages: list[Said], verdict: Verdict) -> None:
    """No message is without an end and a word to its person; none was paid for twice or answered twice."""
    for said in messages:
        answers = said.answers(world)
        verdict.asked += 1
        verdict.answered += bool(answers)
        if not said.is_over(world):
            verdict.lost.append(f"{said.marker}: turns {world.turns_of(said.person)}, told {world.told(said.person)}")
        if len(said.prompts(world)) > 1:
            verdict.doubled.append(f"{said.marker}: its prompt reached the model {len(said.prompts(world))} times")
        if answers > 1:
            verdict.doubled.append(f"{said.marker}: answered {answers} times")


def judge_ledgers(world: World, messages: list[Said], verdict: Verdict) -> None:
    """The books add up, nothing is held for what has ended, and an answer costs what the model said it used."""
    sql = world.product.sql
    verdict.ledgers += [f"window {row}" for row in sql(WRONG_WINDOWS)]
    verdict.ledgers += [f"reservation {row}" for row in sql(WRONG_RESERVATIONS)]
    verdict.ledgers += [f"reservation still held: {row}" for row in sql(_HELD_FOR_NOTHING)]
    for execution, attempt in sql(_RELEASED_TWICE):
        verdict.doubled.append(f"execution {execution} opened its spend gate {attempt} times")
    for said in messages:
        used, posted = said.used(world), said.posted(world)
        right = posted == used if said.answers(world) else posted <= used
        if not right:
            verdict.ledgers.append(f"{said.marker}: the model counted {used} output tokens, the ledger {posted}")


_HELD_FOR_NOTHING = """
    SELECT reservation.id, reservation.attempt FROM budgets_reservation AS reservation
    WHERE reservation.state = 'held' AND NOT EXISTS (SELECT FROM execution_execution
        WHERE reservation_id = reservation.id AND state IN ('queued', 'starting', 'running', 'waiting_approval'))
"""
_RELEASED_TWICE = f"""
    SELECT subject_id, count(*) FROM kernel_journalentry
    WHERE event = '{events.RELEASED}' GROUP BY subject_id HAVING count(*) > 1
"""


def judge_processes(
    var: Path, owners: Callable[[], list[psutil.Process]], verdict: Verdict, *, patience: float = 20.0
) -> None:
    """Every CLI of this product stands below a living owner; with no owners: there is none at all.

    What is on its way out gets `patience`: a worker is told its last CLI's end after its person has the answer.
    """
    until = time.monotonic() + patience
    while (left := _orphans(var, owners())) and time.monotonic() < until:
        time.sleep(0.2)
    verdict.orphans += [f"process {pid}: {_command(pid)}" for pid in left]


def _orphans(var: Path, owners: list[psutil.Process]) -> list[int]:
    owned = {process.pid for owner in owners for process in owner.children(recursive=True)}
    return [pid for pid in _of_product(var) if pid not in owned]


def _of_product(var: Path) -> list[int]:
    """Return the processes that live in one of its homes: the CLIs and whatever they started."""
    mark = f"HOME={var / 'homes'}".encode()
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:200]
    except psutil.NoSuchProcess:
        return "gone meanwhile"
