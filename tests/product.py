"""The product itself, started as `make run` starts it, in a directory of its own and on ports of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg

from fleet.platform.confinement import tethered

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 240.0


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Product:
    """A running Fleet. Only loopback, only fake keys, its own HOME; everything it started is stopped at the end."""

    def __init__(self, **variables: str) -> None:
        self._holder = tempfile.TemporaryDirectory(prefix="fleet-product-", ignore_cleanup_errors=True)
        self.var = Path(self._holder.name) / "var"
        home = Path(self._holder.name) / "home"
        home.mkdir()
        self.port = free_port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "FLEET_VAR": str(self.var),
            "FLEET_PORT": str(self.port),
            "TELEGRAM_API_ROOT": "http://127.0.0.1:9",
            **variables,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._holder.cleanup()

    def start(self) -> float:
        """Start and wait until ready; return the seconds it took."""
        began = time.monotonic()
        self.log = (self.var.parent / "log").open("ab")
        self.process = subprocess.Popen(
            tethered([sys.executable, "-m", "fleet.platform", "up"], sends=signal.SIGINT),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.wait_until_ready()
        return time.monotonic() - began

    def stop(self) -> None:
        """Stop as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def wait_until_ready(self) -> None:
        """Return once every part of it answers."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError("Fleet did not start:\n" + (self.var.parent / "log").read_text()[-3000:])
            try:
                if self.get("/readyz")["status"] == "ready":
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.02)
        raise TimeoutError("Fleet was not ready in time:\n" + (self.var.parent / "log").read_text()[-3000:])

    def get(self, path: str, **headers: str) -> dict[str, Any]:
        """Return the JSON of a page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            body: dict[str, Any] = json.load(answer)
            return body

    def manage(self, *arguments: str) -> str:
        """Run a management command against this product; return what it printed."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)}: {done.stderr[-2000:]}")
        return done.stdout

    def sql(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run one statement in the product's database; return its rows."""
        with psycopg.connect(self.addresses()["DATABASE_URL"], autocommit=True) as connection:
            cursor = connection.execute(query, arguments)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def processes(self) -> list[psutil.Process]:
        """Return every process of this product: the launcher and all below it."""
        launcher = psutil.Process(self.process.pid)
        return [launcher, *launcher.children(recursive=True)]

    def service(self, name: str) -> list[psutil.Process]:
        """Return the processes of one service: web, worker, runner, gateways, postgres or valkey."""
        mark = {"web": "daphne", "valkey": "valkey-server"}.get(name, name)
        found = []
        for process in self.processes():
            try:
                words = [Path(word.split(" ")[0]).name for word in process.cmdline()]
            except psutil.Error:
                continue
            if mark in words and "setpriv" not in words[:1]:
                found.append(process)
        return found

    def addresses(self) -> dict[str, str]:
        """Return DATABASE_URL and REDIS_URL of its embedded servers."""
        return dict(line.split("=", 1) for line in (self.var / "servers.env").read_text().splitlines())
