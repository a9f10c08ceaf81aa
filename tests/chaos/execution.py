"""`manage.py chaos execution`: SIGKILL for worker, shim, CLI and servers at random points of paid turns, with real parts throughout.

It starts a product of its own on loopback, in a directory of its own, and strikes only what that product has started.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import psutil
import psycopg

from tests.chaos.messages import Said, say
from tests.chaos.points import SERVERS, Point, points, servers, strike, targets
from tests.chaos.verdict import Verdict, judge_ledgers, judge_messages, judge_processes
from tests.running_product import World, eventually, started

STAGE_SECONDS = 15.0
SETTLE_SECONDS = 150.0
BYSTANDERS = 1  # others who talk to the bot in the same round


def run(*, rounds: int, seed: int, tell: Callable[[str], None]) -> Verdict:
    """Drill; return what was found."""
    verdict = Verdict()
    with started() as world:
        drill = Drill(world, tell)
        for number, point in enumerate(points(rounds, seed), 1):
            drill.strike(number, point)
        drill.settle()
        judge_messages(world, drill.messages, verdict)
        judge_ledgers(world, drill.messages, verdict)
        judge_processes(world.product.var, partial(world.product.service, "worker"), verdict)
        product = world.product
    judge_processes(product.var, list, verdict)
    tell(f"struck: {drill.tally()}")
    return verdict


class Drill:
    """The rounds of one drill and what was said in them."""

    def __init__(self, world: World, tell: Callable[[str], None]) -> None:
        self._world, self._tell = world, tell
        self._struck: Counter[str] = Counter()
        self.messages: list[Said] = []
        world.product.sql(
            "INSERT INTO identities_toolgrant (identity_id, pattern, decision)"
            " SELECT id, 'Bash', 'allow' FROM identities_identity WHERE slug = 'ada'"
        )

    def strike(self, number: int, point: Point) -> None:
        """Play one round: ask, wait for the stage, strike, and wait until everybody has heard how it ended."""
        worker = eventually(lambda: self._world.product.service("worker"))[0]
        asked = say(self._world, f"errand-{number}-a", works=point.works)
        others = [say(self._world, f"errand-{number}-b{i}", works=False) for i in range(BYSTANDERS)]
        self.messages += [asked, *others]
        seen, shim = self._wait_for(point.stage, asked)
        time.sleep(point.jitter)
        hit = strike(self._targets(point.victim, worker, shim))
        eventually(self._answers)
        self._struck[point.victim if hit else "nothing"] += 1
        began = time.monotonic()
        self.settle()
        ends = [said.turns(self._world) for said in (asked, *others)]
        self._tell(
            f"{number:3} {point.victim:14} at {point.stage:8} (seen {seen}) hit {hit or 'nothing'}"
            f" → {ends} after {time.monotonic() - began:.1f} s"
        )

    def _targets(self, victim: str, worker: psutil.Process, shim: int | None) -> Callable[[], list[psutil.Process]]:
        if victim in SERVERS:
            return lambda: servers(self._world.product.service(SERVERS[victim]))
        return partial(targets, victim, worker, shim)

    def _answers(self) -> bool:
        """Return whether the database can be asked how it went."""
        try:
            return bool(self._world.product.sql("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def settle(self) -> None:
        """Wait until every message has its end; what has none in time stays for the verdict to count."""
        until = time.monotonic() + SETTLE_SECONDS
        waiting = list(self.messages[-1 - BYSTANDERS :])
        while waiting and time.monotonic() < until:
            waiting = [said for said in waiting if not said.is_over(self._world)]
            time.sleep(0.1)

    def tally(self) -> str:
        """Return how often each victim was hit."""
        return ", ".join(f"{victim} {count}" for victim, count in sorted(self._struck.items()))

    def _wait_for(self, stage: str, said: Said) -> tuple[str, int | None]:
        """Wait until its execution is at the stage; return the state it was seen in, and its shim if known by then."""
        until = time.monotonic() + STAGE_SECONDS
        while True:
            state, shim, at_stage = self._look(stage, said)
            if at_stage or time.monotonic() > until:
                return state, shim
            time.sleep(0.003)

    def _look(self, stage: str, said: Said) -> tuple[str, int | None, bool]:
        rows = self._world.product.sql(
            "SELECT e.state, e.pid, e.provider_ended_at IS NOT NULL,"
            " ARRAY(SELECT kind FROM execution_executionevent v WHERE v.execution_id = e.id)"
            " FROM execution_execution e JOIN conversations_turn t ON t.execution_id = e.id"
            " JOIN conversations_conversation c ON c.id = t.conversation_id WHERE c.chat_id = %s",
            str(said.person.id),
        )
        if not rows:
            return "nothing", None, False
        state, shim, ended, kinds = rows[0]
        reached = {
            "queued": True,
            "starting": state != "queued",
            "released": state not in ("queued", "starting"),
            "text": "text" in kinds,
            "tool": "tool_started" in kinds,
            "closing": any(request.ended for request in said.requests(self._world)),
            "warm": ended,
        }
        return state, shim, reached[stage] or state in ("succeeded", "failed", "lost", "stopped")
