"""The shim against real processes: nothing it started survives, whatever it does and whoever dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from execution.shim import processes
from execution.shim.handle import MARKER, Nursery, Shim

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
# A child that ignores SIGTERM, in a session of its own, whose parent has gone: no process group and no parent leads to it.
STUBBORN = "(trap '' TERM; setsid sh -c \"trap '' TERM; echo born; while :; do sleep 1; done\" &) ; "

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def shim() -> Iterator[Shim]:
    shim = Shim()
    yield shim
    shim.stop(grace=0)
    assert shim.wait_gone(20)
    shim.close()


def shell(shim: Shim, script: str, tmp_path: Path) -> int:
    """Run a script under the shim and return the descriptor of its output."""
    _, stdout, _ = shim.take_streams()
    shim.start(["/bin/sh", "-c", script], environment=ENVIRONMENT, cwd=tmp_path)
    return stdout


def read_all(descriptor: int) -> str:
    """Read to the end."""
    with os.fdopen(descriptor, "rb") as file:
        return file.read().decode()


def family(shim: Shim) -> list[int]:
    return processes.marked(MARKER, shim.marker)


def test_hands_the_streams_on_and_reports_the_end(shim: Shim, tmp_path: Path) -> None:
    stdin, stdout, _ = shim.take_streams()
    shim.start(["/bin/sh", "-c", "read line; echo got $line; exit 3"], environment=ENVIRONMENT, cwd=tmp_path)
    os.write(stdin, b"hello\n")
    assert os.read(stdout, 100) == b"got hello\n"
    assert shim.wait_gone(20)
    assert shim.exit_status == 3


def test_gives_the_cli_this_environment_and_directory_and_no_more(shim: Shim, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    said = read_all(shell(shim, "env; pwd", tmp_path))
    names = {line.split("=")[0] for line in said.splitlines() if "=" in line}
    assert names <= {"PATH", "PWD", MARKER, "_", "SHLVL", "OLDPWD"}
    assert str(tmp_path) in said


def test_nothing_of_the_cli_is_in_the_arguments_or_environment_of_the_shim(shim: Shim, tmp_path: Path) -> None:
    shim.take_streams()
    secret = {**ENVIRONMENT, "ANTHROPIC_API_KEY": "sk-ant-canary"}
    shim.start(["/bin/sleep", "60"], environment=secret, cwd=tmp_path)
    arguments = Path(f"/proc/{shim.pid}/cmdline").read_bytes()
    assert b"canary" not in arguments
    if os.geteuid() == 0:
        assert b"canary" not in Path(f"/proc/{shim.pid}/environ").read_bytes()
    else:
        with pytest.raises(PermissionError):
            Path(f"/proc/{shim.pid}/environ").read_bytes()


def test_hands_a_secret_over_in_a_pipe_that_ends(shim: Shim, tmp_path: Path) -> None:
    _, stdout, _ = shim.take_streams()
    script = "cat <&$SECRET; cat <&$SECRET; echo; echo $SECRET; ls /proc/$$/fd; cat /proc/$$/environ"
    shim.start(["/bin/sh", "-c", script], environment=ENVIRONMENT, secrets={"SECRET": "canary"}, cwd=tmp_path)
    first, number, *rest = read_all(stdout).splitlines()
    assert first == "canary"
    assert sorted(line for line in rest if line.isdigit()) == sorted({"0", "1", "2", number}), "more was handed down"
    assert "canary" not in "".join(rest)


def test_refuses_a_secret_that_would_not_fit_a_pipe(shim: Shim, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        shim.start(["/bin/true"], environment=ENVIRONMENT, secrets={"SECRET": "x" * 5000}, cwd=tmp_path)


def test_says_why_a_cli_cannot_be_started(shim: Shim, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        shim.start(["/no/such/cli"], environment=ENVIRONMENT, cwd=tmp_path)


def test_kills_what_ignores_sigterm_and_hides_in_a_session_of_its_own(shim: Shim, tmp_path: Path) -> None:
    stdout = shell(shim, STUBBORN + "exec sleep 60", tmp_path)
    assert os.read(stdout, 100) == b"born\n"
    assert len(family(shim)) >= 2
    shim.stop(grace=0.2)
    assert shim.wait_gone(20)
    assert family(shim) == []


def test_ends_what_a_cli_leaves_behind(shim: Shim, tmp_path: Path) -> None:
    stdout = shell(shim, STUBBORN + "sleep 0.1; exit 0", tmp_path)
    assert os.read(stdout, 100) == b"born\n"
    assert shim.wait_gone(20)
    assert (shim.exit_status, family(shim)) == (0, [])


def test_gives_the_polite_their_grace(shim: Shim, tmp_path: Path) -> None:
    stdout = shell(shim, "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done", tmp_path)
    assert os.read(stdout, 100) == b"ready\n"
    shim.stop(grace=20)
    assert os.read(stdout, 100) == b"bye\n"
    assert shim.wait_gone(20)


def test_when_the_shim_itself_is_killed_its_tree_is_still_found(shim: Shim, tmp_path: Path) -> None:
    stdout = shell(shim, STUBBORN + "exec sleep 60", tmp_path)
    assert os.read(stdout, 100) == b"born\n"
    os.kill(shim.pid, signal.SIGKILL)
    assert shim.wait_gone(20)
    assert family(shim) == []


WORKER = """
import os, sys
import django; django.setup()
from pathlib import Path
from execution.shim.handle import Shim
shim = Shim()
_, stdout, _ = shim.take_streams()
shim.start(["/bin/sh", "-c", sys.argv[1]], environment={"PATH": "/usr/bin:/bin"}, cwd=Path("/"))
assert os.read(stdout, 100) == b"born\\n"
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
