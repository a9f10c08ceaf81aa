"""`make run` on a product in miniature: the real launcher, supervisor, servers and processes, but services of a few lines.

The miniature answers within a second, so that every end a start can take is worth a test. The whole product is started
in test_product.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from fleet.platform.embedded import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 120.0
DAPHNE = """
import http.server, sys
port = int(sys.argv[sys.argv.index("-p") + 1])
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ready"}')
http.server.ThreadingHTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""
SETTINGS = "SECRET_KEY = 'mini'"
MANAGE = """
import os, pathlib, signal, sys, time
import psycopg
name, here = sys.argv[1], pathlib.Path(__file__).parent
if name == "prepare":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("create table if not exists start (at timestamptz default now())")
        connection.execute("insert into start default values")
    if (here / "broken").exists():
        sys.exit("the migration of the moon failed")
    print("http://127.0.0.1/sign-in/once/")
else:
    def leave(*_):
        print(name, "leaves", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, leave)
    print(name, "works", flush=True)
    while True:
        time.sleep(60)
"""


class Miniature:
    """A project directory with the real platform in it, and the `up` that runs from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.var = root / "var"
        self.output = root / "output-of-up"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        shutil.copytree(ROOT / "fleet" / "platform", root / "fleet" / "platform")
        for name, text in {
            "fleet/__init__.py": "", "fleet/settings/base.py": SETTINGS, "fleet/settings/headless.py": SETTINGS, "uv.lock": "",
            "daphne/__init__.py": "", "daphne/__main__.py": DAPHNE, "manage.py": MANAGE,
        }.items():  # fmt: skip
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)

    def begin(self) -> None:
        """Start `up` and do not wait."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleet.platform", "up"], cwd=self.root, env=self._environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def up(self) -> None:
        """Start `up` and wait until it says that it is ready."""
        self.begin()
        until(lambda: "Fleet is ready at" in self.said() or self.process.poll() is not None)
        assert "Fleet is ready at" in self.said(), self.said()

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def ended(self, *arguments: str, answer: str = "", **variables: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "fleet.platform", *arguments], cwd=self.root, env=self._environment(**variables),
            input=answer, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def _environment(self, **variables: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "FLEET_PORT": str(self.port), **variables}

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def starts(self) -> int:
        """How often the database has seen `prepare`."""
        url = (self.var / "servers.env").read_text().splitlines()[0].removeprefix("DATABASE_URL=")
        with psycopg.connect(url) as connection:
            return int(connection.execute("select count(*) from start").fetchone()[0])

    def processes(self) -> dict[int, str]:
        """The command of everything that runs from this directory, by pid."""
        found = {process.pid: self._command(process) for process in psutil.process_iter()}
        return {pid: command for pid, command in found.items() if command}

    def pids(self, name: str) -> set[int]:
        """The processes with `name` in their command."""
        return {pid for pid, command in self.processes().items() if name in command}

    def _command(self, process: psutil.Process) -> str:
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if str(self.root) in f"{process.cwd()} {command}" and process.status() != psutil.STATUS_ZOMBIE:
                return command
        return ""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        time.sleep(0.05)


@contextlib.contextmanager
def a_miniature(root: Path) -> Iterator[Miniature]:
    product = Miniature(root)
    try:
        yield product
    finally:
        if product.process and product.process.poll() is None:
            product.process.terminate()
            product.process.wait(PATIENCE)
        until(lambda: not product.processes())


@pytest.fixture
def miniature(tmp_path: Path) -> Iterator[Miniature]:
    with a_miniature(tmp_path) as product:
        yield product


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miniature]:
    """One that is up, for tests after which it still is."""
    with a_miniature(tmp_path_factory.mktemp("running")) as product:
        product.up()
        yield product


def test_a_start_says_where_it_is_and_how_to_sign_in(running: Miniature) -> None:
    assert f"Fleet is ready at http://127.0.0.1:{running.port}" in running.said()
    assert "http://127.0.0.1/sign-in/once/" in running.said()


def test_the_services_are_heard_under_their_names(running: Miniature) -> None:
    until(lambda: "runner   | runner works" in running.said())


def test_a_second_start_from_the_same_directory_is_sent_to_the_first(running: Miniature) -> None:
    code, said = running.ended("up", FLEET_PORT=str(free_port()))
    assert code == 1
    assert f"(process {running.process.pid}) at http://127.0.0.1:{running.port}:" in said
    assert len(said.splitlines()) == 1


def test_a_running_fleet_is_not_removed(running: Miniature) -> None:
    code, said = running.ended("reset", answer="remove\n")
    assert code == 1
    assert "already runs" in said


@pytest.mark.parametrize(
    "name", ["daphne", "manage.py worker", "manage.py runner", "manage.py gateways", "valkey-server", "bin/postgres"]
)
def test_a_killed_service_comes_back(running: Miniature, name: str) -> None:
    before = running.pids(name)
    os.kill(min(before), signal.SIGKILL)
    until(lambda: running.pids(name) - before)


def test_ctrl_c_leaves_nothing_and_the_next_start_goes_on_with_the_same_data(miniature: Miniature) -> None:
    for starts in (1, 2):
        miniature.up()
        assert miniature.starts() == starts
        assert miniature.end() == 0
        assert miniature.said().rstrip().endswith("Stopped.")
        assert miniature.processes() == {}


def test_services_stop_in_order_and_the_database_is_the_last(miniature: Miniature) -> None:
    miniature.up()
    miniature.end()
    log = (miniature.var / "supervisor" / "supervisord.log").read_text()
    stopped = [line.split("stopped: ")[1].split()[0] for line in log.splitlines() if "stopped: " in line]
    assert stopped == ["gateways", "web", "worker", "runner", "valkey", "postgres"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_or_a_shutdown_stops_as_ctrl_c_does(miniature: Miniature, number: signal.Signals) -> None:
    miniature.up()
    assert miniature.end(number) == 0
    assert miniature.processes() == {}


def test_a_killed_launcher_takes_everything_along(miniature: Miniature) -> None:
    miniature.up()
    miniature.end(signal.SIGKILL)
    until(lambda: not miniature.processes())


def test_a_start_right_after_a_killed_launcher_waits_for_the_rest_to_end(miniature: Miniature) -> None:
    miniature.up()
    miniature.end(signal.SIGKILL)
    miniature.up()
    assert miniature.end() == 0


def test_a_start_right_after_a_killed_supervisor_works(miniature: Miniature) -> None:
    miniature.up()
    (supervisor,) = miniature.pids("supervisor.supervisord")
    os.kill(supervisor, signal.SIGKILL)
    assert miniature.process.wait(PATIENCE) == 1
    assert "The supervisor ended" in miniature.said()
    miniature.up()
    assert miniature.end() == 0


def test_a_killed_database_comes_back_however_busy_a_child_of_it_is(miniature: Miniature) -> None:
    """Supervisor starts it again by itself, after what still holds its memory."""
    miniature.up()
    url = (miniature.var / "servers.env").read_text().splitlines()[0].removeprefix("DATABASE_URL=")
    program = "import sys, psycopg; psycopg.connect(sys.argv[1]).execute(sys.argv[2])"
    statement = "select count(*) from generate_series(1, 100000000000)"
    client = subprocess.Popen([sys.executable, "-c", program, url, statement], stderr=subprocess.DEVNULL)
    with psycopg.connect(url, autocommit=True) as connection:
        counting = "select count(*) from pg_stat_activity where query like 'select count%%series%%'"
        until(lambda: connection.execute(counting).fetchone()[0] == 2)
    os.kill(int((miniature.var / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0]), signal.SIGKILL)
    assert client.wait(PATIENCE) != 0
    until(lambda: answers(miniature))
    assert "pre-existing shared memory" not in (miniature.var / "log" / "postgres.log").read_text()
    assert miniature.end() == 0


def answers(miniature: Miniature) -> bool:
    try:
        return miniature.starts() == 1
    except psycopg.OperationalError:
        return False


def test_a_start_after_a_killed_supervisor_ends_what_was_frozen_meanwhile(miniature: Miniature) -> None:
    miniature.up()
    frozen = {
        name: min(miniature.pids(name)) for name in ("daphne", "manage.py runner", "valkey-server", "bin/postgres")
    }
    for pid in frozen.values():
        os.kill(pid, signal.SIGSTOP)
    (supervisor,) = miniature.pids("supervisor.supervisord")
    os.kill(supervisor, signal.SIGKILL)
    assert miniature.process.wait(PATIENCE) == 1
    miniature.up()
    assert set(frozen.values()).isdisjoint(miniature.processes())
    assert miniature.end() == 0


def test_killed_launchers_one_after_the_other_leave_nothing_to_the_next(miniature: Miniature) -> None:
    for starts in range(1, 5):
        miniature.up()
        assert miniature.starts() == starts
        before = set(miniature.processes())
        miniature.end(signal.SIGKILL)
    miniature.up()
    assert before.isdisjoint(miniature.processes())
    assert miniature.end() == 0


def test_stop_ends_the_running_fleet_and_waits_for_it(miniature: Miniature) -> None:
    miniature.up()
    code, said = miniature.ended("stop")
    assert (code, said) == (0, "Stopped.\n")
    assert miniature.process.wait(PATIENCE) == 0
    assert miniature.processes() == {}


def test_stop_says_when_there_is_nothing_to_stop(miniature: Miniature) -> None:
    assert miniature.ended("stop") == (0, "Fleet is not running.\n")


def test_a_database_that_cannot_be_prepared_ends_the_start_with_its_reason(miniature: Miniature) -> None:
    (miniature.root / "broken").touch()
    code, said = miniature.ended("up")
    assert code == 1
    assert "The database could not be prepared" in said
    assert "the migration of the moon failed" in said
    assert miniature.processes() == {}


def test_ctrl_c_during_the_start_stops_at_once(miniature: Miniature) -> None:
    miniature.begin()
    until(lambda: (miniature.var / "supervisor" / "supervisord.pid").exists())
    assert miniature.end() == 0
    assert miniature.processes() == {}


def test_a_dotenv_file_is_honoured(miniature: Miniature) -> None:
    (miniature.root / ".env").write_text("FLEET_VAR=elsewhere\nFLEET_PORT=none\n")
    code, said = miniature.ended("up", FLEET_PORT="none")
    assert code == 1
    assert "FLEET_PORT" in said


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FLEET_PORT": "1"}, "FLEET_PORT"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/fleet"}, "DATABASE_URL"),
        ({"FLEET_VAR": "/proc/nowhere"}, "FLEET_VAR"),
    ],
)
def test_what_stands_in_the_way_is_one_sentence(miniature: Miniature, variables: dict[str, str], words: str) -> None:
    if variables.get("FLEET_PORT") == "1" and os.geteuid() == 0:
        pytest.skip("Root may listen on every port.")
    code, said = miniature.ended("up", **variables)
    assert code == 1
    assert words in said
    assert len(said.splitlines()) == 1


def test_reset_needs_the_word_and_then_removes_everything(miniature: Miniature) -> None:
    miniature.up()
    miniature.end()
    code, said = miniature.ended("reset", answer="yes\n")
    assert "Nothing was removed." in said
    assert (miniature.var / "postgres" / "data").exists()
    code, said = miniature.ended("reset", answer="remove\n")
    assert code == 0
    assert not miniature.var.exists()
