"""A whole small installation for the browser: its own servers, a web process and a worker, all of them stopped by pid."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fleet.platform.embedded import free_port, throw_away_servers

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_SECONDS = 120.0


@dataclass
class House:
    """A running installation, reached as a person reaches it: by its address and by its command line."""

    port: int
    environment: dict[str, str]
    logs: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def manage(self, *arguments: str) -> str:
        """Run one management command and return what it prints."""
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sign_in_link(self) -> str:
        """A one-time link for the first administrator."""
        found = re.search(r"http://\S+/sign-in/\S+", self.manage("signin_link"))
        assert found is not None
        return found[0]

    def start(self, name: str) -> None:
        """Start the web process or the worker."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *self._commands()[name]], cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    def stop(self, name: str) -> None:
        """Stop it and wait until it is gone."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_until_ready(self) -> None:
        """Return once the web process answers."""
        until = time.monotonic() + READY_WITHIN_SECONDS
        while time.monotonic() < until:
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            with contextlib.suppress(OSError, http.client.HTTPException):
                line.request("GET", "/healthz")
                if line.getresponse().status == 200:
                    return
            assert self.processes["web"].poll() is None, (self.logs / "web.log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.logs / "web.log").read_text())

    def _commands(self) -> dict[str, list[str]]:
        return {
            "web": ["-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", str(self.port), "fleet.asgi:application"],
            "worker": ["manage.py", "worker"],
        }


@contextlib.contextmanager
def open_house() -> Iterator[House]:
    """Yield a running installation with the sample fleet; bots answer by the mock."""
    with throw_away_servers() as servers, tempfile.TemporaryDirectory(prefix="fleet-house-") as name:
        port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "DJANGO_SETTINGS_MODULE": "fleet.settings.test",
            "DATABASE_URL": servers.postgres.url,
            "REDIS_URL": servers.valkey.url,
            "FLEET_VAR": f"{name}/var",
            "FLEET_PORT": str(port),
            "FLEET_PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        house = House(port, environment, Path(name))
        try:
            house.manage("prepare", "--no-link")
            house.start("web")
            house.start("worker")
            house.wait_until_ready()
            yield house
        finally:
            for process in list(house.processes):
                house.stop(process)
