"""The real gateway process for tests: `manage.py gateways` against the test database and the Telegram emulator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from django.db import connection

from gateways.service import Service

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
T = TypeVar("T")


def database_url() -> str:
    """The URL of the database the tests use, which is not the one DATABASE_URL names."""
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path="/" + connection.settings_dict["NAME"]))


def until(look: Callable[[], T], timeout: float = PATIENCE) -> T:
    """The first true value of `look`."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout:.0f} s for {look}.")
        time.sleep(0.02)
    return found


class RunningGateway:
    """One gateway process. Its log goes to a file that a failing test can show."""

    def __init__(self, api_root: str, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        self._command = [sys.executable, "manage.py", "gateways", *arguments]
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url(),
            "TELEGRAM_API_ROOT": api_root,
            "FLEET_LOG_LEVEL": "INFO",
            **environment,
        }
        del self._environment["DJANGO_SETTINGS_MODULE"]  # the tests' own

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        return self

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text()

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until the log says something."""

        def said() -> bool:
            if self.process.poll() is not None and self.text().count(words) < times:
                raise AssertionError(f"The gateway ended with {self.process.returncode}:\n{self.text()}")
            return self.text().count(words) >= times

        until(said)

    def kill(self) -> None:
        """As a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """In order; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class Gateways:
    """Starts gateway processes and ends them with the test."""

    def __init__(self, api_root: str, directory: Path) -> None:
        self._api_root, self._directory = api_root, directory
        self._started: list[RunningGateway] = []

    def start(self, *arguments: str, **environment: Any) -> RunningGateway:
        log = self._directory / f"gateway-{len(self._started)}.log"
        gateway = RunningGateway(self._api_root, log, *arguments, **environment).start()
        self._started.append(gateway)
        return gateway

    def end(self) -> None:
        for gateway in self._started:
            gateway.stop()


class GatewayInThread:
    """The same service inside the test's own process, where a test may shorten its waits."""

    def __init__(self, only: tuple[str, ...] = ()) -> None:
        self.service = Service(only)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway")
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End in order. Does nothing twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(lambda: self._work.cancel())
            self._thread.join(PATIENCE)
        if self.error:
            raise self.error

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self.error = error
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._work = asyncio.ensure_future(self.service.run())
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._work
        finally:
            await self.service.close()
