"""The drill `manage.py chaos execution` in short, and proof that its verdict counts what it says it counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.chaos.messages import USED, Said
from tests.chaos.points import STAGES, VICTIMS, points
from tests.chaos.verdict import Verdict, judge_ledgers, judge_messages, judge_processes
from tests.product import ROOT


def test_every_victim_is_struck_at_every_stage_before_any_pair_comes_again():
    pairs = [(point.stage, point.victim) for point in points(len(STAGES) * len(VICTIMS), seed=7)]
    assert len(set(pairs)) == len(pairs) == len(STAGES) * len(VICTIMS)


def test_the_same_seed_strikes_the_same_points():
    assert list(points(50, seed=3)) == list(points(50, seed=3)) != list(points(50, seed=4))


@pytest.mark.stack
@pytest.mark.realcli
@pytest.mark.timeout(1200)
def test_a_short_drill_loses_nothing_doubles_nothing_and_leaves_nothing():
    drill = [sys.executable, "manage.py", "chaos", "execution", "--rounds", "4", "--seed", "11"]
    done = subprocess.run(drill, cwd=ROOT, capture_output=True, text=True, timeout=1100)
    assert "lost 0, doubled 0, orphans 0, wrong ledgers 0" in done.stdout, done.stdout + done.stderr[-3000:]
    assert done.returncode == 0


def test_no_rounds_is_said_to_be_no_drill():
    done = subprocess.run(
        [sys.executable, "manage.py", "chaos", "execution", "--rounds", "0"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, "from 1 on" in done.stderr) == (1, True)


class FakeWorld:
    """A world in which one message went as badly as a test says."""

    def __init__(
        self, *, turns=(("replied", ""),), told=("errand is done.",), prompts=1, posted=USED.output, rows=None
    ):
        self.turns_of, self.told = (lambda _: list(turns)), (lambda _: list(told))
        request = SimpleNamespace(body=b"errand", tool_results={})
        self.model = SimpleNamespace(requests=[request] * prompts)
        self._posted, self._rows = posted, rows or {}
        self.product = SimpleNamespace(sql=self.sql)

    def sql(self, statement: str, *_: object) -> list[tuple[object, ...]]:
        if "budgets_tokenledger l" in statement:
            return [(self._posted,)]
        return next((rows for word, rows in self._rows.items() if word in statement), [])


def judged(world: FakeWorld) -> Verdict:
    verdict, messages = Verdict(), [Said("errand", SimpleNamespace(id=1))]
    judge_messages(world, messages, verdict)
    judge_ledgers(world, messages, verdict)
    return verdict


class TestVerdict:
    def test_a_message_answered_once_and_paid_once_is_clean(self):
        assert judged(FakeWorld()).is_clean

    @pytest.mark.parametrize(
        "world",
        [FakeWorld(turns=()), FakeWorld(turns=[("running", "")]), FakeWorld(told=(), posted=0)],
        ids=["never taken", "never ended", "never told"],
    )
    def test_lost(self, world: FakeWorld):
        assert len(judged(world).lost) == 1

    def test_doubled(self):
        assert judged(FakeWorld(prompts=2, posted=2 * USED.output)).doubled
        assert judged(FakeWorld(told=("errand is done.", "errand is done."))).doubled
        assert judged(FakeWorld(rows={"execution.released": [("7", 2)]})).doubled

    def test_wrong_ledgers(self):
        assert judged(FakeWorld(posted=0)).ledgers
        assert judged(FakeWorld(told=("Sorry.",), posted=USED.output + 1)).ledgers
        assert judged(FakeWorld(rows={"state = 'held'": [(1, "a")]})).ledgers

    def test_orphans(self, tmp_path: Path):
        verdict = Verdict()
        with subprocess.Popen(["sleep", "60"], env={"HOME": f"{tmp_path}/homes/ada"}) as left:
            judge_processes(tmp_path, list, verdict, patience=0.5)
            left.kill()
        assert [str(left.pid) in finding for finding in verdict.orphans] == [True]
