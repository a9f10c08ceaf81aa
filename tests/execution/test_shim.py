"""The shim against real processes: nothing it started survives, whatever it does and whoever dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from execution.ports import ProcessFacts
from execution.shim import handle, leftovers, processes, taking
from execution.shim.handle import MARKER, Nursery, OwnShim

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
# A child that ignores SIGTERM, in a session of its own, whose parent has gone: no process group and no parent leads to it.
STUBBORN = "(trap '' TERM; setsid sh -c \"trap '' TERM; echo born; while :; do sleep 1; done\" &) ; "

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def shim() -> Iterator[OwnShim]:
    shim = OwnShim()
    yield shim
    shim.stop(grace=0)
    assert shim.wait_gone(60)
    shim.close()


def shell(shim: OwnShim, script: str, tmp_path: Path) -> int:
    """Run a script under the shim and return a descriptor of its output."""
    shim.start(["/bin/sh", "-c", script], environment=ENVIRONMENT, cwd=tmp_path)
    return output(shim)


def output(shim: OwnShim) -> int:
    """The descriptor from which the CLI's output is read; it stays open as long as the test."""
    stream = shim.take_stream()
    stream.setblocking(True)
    return os.dup(stream.fileno())


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """What a worker writes."""
    return kind + len(content).to_bytes(4, "big") + content


def read_all(descriptor: int) -> str:
    """Read to the end."""
    with os.fdopen(descriptor, "rb") as file:
        return file.read().decode()


def family(shim: OwnShim) -> list[int]:
    return processes.marked(MARKER, shim.marker)


def test_hands_the_streams_on_and_reports_the_end(shim: OwnShim, tmp_path: Path) -> None:
    stdout = shell(shim, "read line; echo got $line; exit 3", tmp_path)
    os.write(stdout, frame(b"D", b"hello\n"))
    assert os.read(stdout, 100) == b"got hello\n"
    assert shim.wait_gone(60)
    assert shim.exit_status == 3


def test_gives_the_cli_this_environment_and_directory_and_no_more(shim: OwnShim, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    said = read_all(shell(shim, "env; pwd", tmp_path))
    names = {line.split("=")[0] for line in said.splitlines() if "=" in line}
    assert names <= {"PATH", "PWD", MARKER, "_", "SHLVL", "OLDPWD"}
    assert str(tmp_path) in said


def test_nothing_of_the_cli_is_in_the_arguments_or_environment_of_the_shim(shim: OwnShim, tmp_path: Path) -> None:
    secret = {**ENVIRONMENT, "ANTHROPIC_API_KEY": "sk-ant-canary"}
    shim.start(["/bin/sleep", "60"], environment=secret, cwd=tmp_path)
    arguments = Path(f"/proc/{shim.pid}/cmdline").read_bytes()
    assert b"canary" not in arguments
    if os.geteuid() == 0:
        assert b"canary" not in Path(f"/proc/{shim.pid}/environ").read_bytes()
    else:
        with pytest.raises(PermissionError):
            Path(f"/proc/{shim.pid}/environ").read_bytes()


def test_hands_a_secret_over_in_a_pipe_that_ends(shim: OwnShim, tmp_path: Path) -> None:
    script = "cat <&$SECRET; cat <&$SECRET; echo; echo $SECRET; ls /proc/$$/fd; cat /proc/$$/environ"
    shim.start(["/bin/sh", "-c", script], environment=ENVIRONMENT, secrets={"SECRET": "canary"}, cwd=tmp_path)
    first, number, *rest = read_all(output(shim)).splitlines()
    assert first == "canary"
    assert sorted(line for line in rest if line.isdigit()) == sorted({"0", "1", "2", number}), "more was handed down"
    assert "canary" not in "".join(rest)


def test_refuses_a_secret_that_would_not_fit_a_pipe(shim: OwnShim, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        shim.start(["/bin/true"], environment=ENVIRONMENT, secrets={"SECRET": "x" * 5000}, cwd=tmp_path)


def test_says_why_a_cli_cannot_be_started(shim: OwnShim, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        shim.start(["/no/such/cli"], environment=ENVIRONMENT, cwd=tmp_path)


def test_kills_what_ignores_sigterm_and_hides_in_a_session_of_its_own(shim: OwnShim, tmp_path: Path) -> None:
    stdout = shell(shim, STUBBORN + "exec sleep 60", tmp_path)
    assert os.read(stdout, 100) == b"born\n"
    assert len(family(shim)) >= 2
    shim.stop(grace=0.2)
    assert shim.wait_gone(60)
    assert family(shim) == []


def test_ends_what_a_cli_leaves_behind(shim: OwnShim, tmp_path: Path) -> None:
    stdout = shell(shim, STUBBORN + "read line; exit 0", tmp_path)
    assert os.read(stdout, 100) == b"born\n"
    os.write(stdout, frame(b"D", b"go\n"))
    assert shim.wait_gone(60)
    assert (shim.exit_status, family(shim)) == (0, [])


def test_everyone_who_asks_at_the_same_moment_gets_the_proof(tmp_path: Path) -> None:
    """A kill order's thread and the turn's own both wait for the end; the answer of neither may depend on the other's."""
    for _ in range(10):
        shim = OwnShim()
        os.close(shell(shim, "exec sleep 60", tmp_path))
        shim.stop(grace=0.2)
        with ThreadPoolExecutor(16) as askers:
            proofs = list(askers.map(shim.wait_gone, [20.0] * 16))
        shim.close()
        assert proofs == [True] * 16


def test_gives_the_polite_their_grace(shim: OwnShim, tmp_path: Path) -> None:
    stdout = shell(shim, "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done", tmp_path)
    assert os.read(stdout, 100) == b"ready\n"
    shim.stop(grace=20)
    assert os.read(stdout, 100) == b"bye\n"
    assert shim.wait_gone(60)


def test_when_the_shim_itself_is_killed_its_tree_is_still_found(shim: OwnShim, tmp_path: Path) -> None:
    stdout = shell(shim, STUBBORN + "exec sleep 60", tmp_path)
    assert os.read(stdout, 100) == b"born\n"
    os.kill(shim.pid, signal.SIGKILL)
    assert shim.wait_gone(60)
    assert family(shim) == []


WORKER = """
import os, sys
import django; django.setup()
from pathlib import Path
from execution.shim.handle import OwnShim
shim = OwnShim()
shim.start(["/bin/sh", "-c", sys.argv[1]], environment={"PATH": "/usr/bin:/bin"}, cwd=Path("/"))
assert shim.take_stream().recv(100) == b"born\\n"
print(shim.pid, shim.marker, flush=True)
sys.stdin.read()
"""


def test_when_the_worker_is_killed_nothing_is_left(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, STUBBORN + "exec sleep 60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "fleet.settings.test"},
    )
    pid, marker = worker.stdout.readline().split()
    shim = psutil.Process(int(pid))
    assert processes.marked(MARKER, marker.decode())
    worker.kill()
    worker.wait()
    shim.wait(20)
    assert processes.marked(MARKER, marker.decode()) == []


def test_a_spare_is_ready_before_it_is_needed() -> None:
    nursery = Nursery()
    nursery.prepare()
    first = nursery.take()
    second = nursery.take()
    assert first.alive and second.alive and first.pid != second.pid
    deadline = time.monotonic() + 20
    while nursery._spare is None and time.monotonic() < deadline:
        time.sleep(0.01)
    for shim in (first, second, nursery.take()):
        shim.close()
        assert not shim.alive


def test_twenty_stubborn_trees_are_ended_side_by_side(tmp_path: Path) -> None:
    shims = [OwnShim() for _ in range(20)]
    for shim in shims:
        assert os.read(shell(shim, STUBBORN + "exec sleep 60", tmp_path), 100) == b"born\n"
    for shim in shims:
        shim.stop(grace=0.5)
    assert all(shim.wait_gone(60) for shim in shims)
    assert not [pid for shim in shims for pid in family(shim)]
    for shim in shims:
        shim.close()


class TestTakingOver:
    """A worker goes away, another one comes."""

    @pytest.fixture
    def left(self, tmp_path: Path) -> Iterator[ProcessFacts]:
        """An echo with one line said and half a line more, whose worker went away."""
        shim = OwnShim()
        facts = shim.start(["/bin/sh", "-c", ECHO], environment=ENVIRONMENT, cwd=tmp_path)
        stream = shim.take_stream()
        stream.sendall(frame(b"R", b"7\x000\x00memo") + frame(b"D", b"one\n"))
        assert stream.recv(100) == b"got one\n"
        stream.sendall(frame(b"D", b"half a line\n")[:8])
        shim.leave()
        stream.close()
        yield facts
        leftovers.end(facts)

    def test_hears_everything_again_and_goes_on(self, left: ProcessFacts) -> None:
        inherited = taking.take(left, run="7", epoch=1)
        assert (inherited.memo, inherited.said) == (b"memo", b"one\n")
        stream = inherited.shim.take_stream()
        stream.sendall(frame(b"D", b"two\n"))
        assert heard(stream, 16) == b"got one\ngot two\n"
        stream.sendall(frame(b"S", b"7") + frame(b"E"))
        assert inherited.shim.wait_gone(60)
        assert inherited.shim.exit_status == 3

    @pytest.mark.parametrize(
        ("why", "asked"), [("late", {"epoch": 0}), ("late", {"epoch": -1}), ("nothing", {"run": "8"})]
    )
    def test_refuses_whoever_is_late_or_means_another_run(self, left: ProcessFacts, why: str, asked: dict) -> None:
        with pytest.raises(taking.NotTaken, match=why):
            taking.take(left, **{"run": "7", "epoch": 1, **asked})

    def test_refuses_a_wrong_key(self, left: ProcessFacts, monkeypatch) -> None:
        monkeypatch.setattr(taking, "key_of", lambda marker: "guessed")
        with pytest.raises(taking.NotTaken, match="key"):
            taking.take(left, run="7", epoch=1)

    def test_shuts_out_the_one_before(self, left: ProcessFacts) -> None:
        first = taking.take(left, run="7", epoch=1)
        second = taking.take(left, run="7", epoch=2)
        first.shim.stop(grace=0)
        assert heard(second.shim.take_stream(), 8) == b"got one\n"
        assert first.shim.wait_gone(0.1) is False
        with pytest.raises(taking.NotTaken, match="late"):
            taking.take(left, run="7", epoch=2)

    def test_a_settled_run_ends_with_its_worker(self, left: ProcessFacts) -> None:
        inherited = taking.take(left, run="7", epoch=1)
        stream = inherited.shim.take_stream()
        heard(stream, 8)  # an end is settled by whoever has heard it
        stream.sendall(frame(b"S", b"7") + frame(b"D", b"two\n"))
        assert heard(stream, 8) == b"got two\n"
        inherited.shim.leave()
        stream.close()
        assert inherited.shim._ended_within(20)

    def test_a_spool_that_is_full_ends_the_waiting_and_not_the_run(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(handle, "MOST_SPOOLED", 100_000)
        shim = OwnShim()
        script = "read line; head -c 300000 /dev/zero | tr '\\0' x; read line; echo got $line"
        shim.start(["/bin/sh", "-c", script], environment=ENVIRONMENT, cwd=tmp_path)
        stream = shim.take_stream()
        stream.sendall(frame(b"R", b"7\x000\x00") + frame(b"D", b"go\n"))
        assert len(heard(stream, 300_000)) == 300_000
        stream.sendall(frame(b"D", b"on\n"))
        assert heard(stream, 7) == b"got on\n"
        shim.leave()
        stream.close()
        assert shim._ended_within(20)


ECHO = "while read line; do echo got $line; done; exit 3"


def heard(stream: socket.socket, count: int) -> bytes:
    """Read so many bytes."""
    said = b""
    while len(said) < count:
        piece = stream.recv(count - len(said))
        assert piece, f"it ended after {said[-100:]!r}"
        said += piece
    return said
