"""`make run`: from nothing to a console that answers, and back to nothing on Ctrl-C."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from fleet.platform import preflight
from fleet.platform.confinement import tethered
from fleet.platform.installation import ROOT, Installation, child_environment, write_addresses
from fleet.platform.logs import LogStream
from fleet.platform.presence import only_one
from fleet.platform.private import make_private
from fleet.platform.supervision import Supervisor, log_file, services
from fleet.platform.terminal import say, shown

PREPARE_SECONDS = 300.0
SERVER_SECONDS = 60.0
READY_SECONDS = 120.0
WHOLE_SECONDS = 20.0  # a worker or a Redis may be missing for longer; the console works without
AFTER_A_CRASH_SECONDS = 10.0


class Stopped(Exception):
    """The person asked us to stop."""


class StartFailed(RuntimeError):
    """Fleet did not come up; the text is the sentence for the person."""


class Launch:
    """One `make run`, from the first check to the last process gone."""

    def __init__(self, here: Installation) -> None:
        self.here = here
        self.supervisor = Supervisor(here)
        self.postgres = here.postgres()
        self.valkey = here.valkey()
        self.stop_asked = False
        self.began = time.monotonic()

    def run(self) -> None:
        """Bring Fleet up, follow its logs until we are asked to stop, and take it down."""
        preflight.check_place(self.here)
        with only_one(self.here), self._asked_to_stop_by_signals():
            crashed = self._end_leftovers()
            preflight.check_port(self.here.host, self.here.port, patience=AFTER_A_CRASH_SECONDS if crashed else 0.0)
            self._prepare_servers()
            self._forget_old_schema()
            self.logs = LogStream(self._log_files(), coloured=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
            self.here.stopping.unlink(missing_ok=True)
            self.process = self.supervisor.start(services(self.here), self.environment)
            try:
                self._bring_up()
                self._wait(lambda: False)
            except Stopped:
                say("Stopping.")
            finally:
                self._take_down()

    def _prepare_servers(self) -> None:
        for server in (self.postgres, self.valkey):
            if server is not None:
                server.prepare()
        database_url = self.postgres.url if self.postgres else self.here.database_url
        redis_url = self.valkey.url if self.valkey else self.here.redis_url
        if not self.postgres:
            preflight.check_database(database_url)
        self.environment = child_environment(self.here, database_url=database_url, redis_url=redis_url)
        write_addresses(self.here, database_url=database_url, redis_url=redis_url)

    def _bring_up(self) -> None:
        self._wait(self._postgres_is_ready, SERVER_SECONDS, "PostgreSQL did not start", log="postgres")
        link = self._prepare_database()
        self.here.schema_stamp.write_text(schema_digest(self.environment["DATABASE_URL"]))
        self._wait(
            lambda: self._readiness() in ("ready", "degraded"), READY_SECONDS, "Fleet did not become ready", log="web"
        )
        patient_until = time.monotonic() + WHOLE_SECONDS
        self._wait(lambda: self._readiness() == "ready" or time.monotonic() > patient_until)
        say("\n".join(["", *self._greeting(link), ""]))

    def _greeting(self, link: str) -> Iterator[str]:
        yield f"Fleet is ready at {self.here.url} after {time.monotonic() - self.began:.1f} s."
        if self._readiness() != "ready":
            yield "Not all of it is well: see `./manage.py status`."
        if link:
            yield f"Sign in once with {link}"
        yield f"Ctrl-C stops it; the data stays in {shown(self.here.var)}."

    def _prepare_database(self) -> str:
        """Run `manage.py prepare` and return what it prints: the one-time sign-in link."""
        make_private(self.here.logs)
        with log_file(self.here, "prepare").open("ab") as log:
            process = subprocess.Popen(
                tethered([sys.executable, str(ROOT / "manage.py"), "prepare"], sends=signal.SIGTERM),
                cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            self._wait(lambda: process.poll() is not None, PREPARE_SECONDS, "The database was not ready", log="prepare")
        finally:
            process.kill()
            printed = process.communicate()[0].decode(errors="replace").strip()
        if process.returncode != 0:
            raise StartFailed("The database could not be prepared. " + self._see("prepare"))
        return printed

    def _postgres_is_ready(self) -> bool:
        self.supervisor.nudge()
        return self.postgres is None or self.postgres.is_ready()

    def _readiness(self) -> str:
        """Return what /readyz says: "ready", "degraded", "not_ready", or nothing while nobody answers."""
        host = "127.0.0.1" if self.here.host in ("0.0.0.0", "::") else self.here.host  # noqa: S104 - compared, not bound
        connection = http.client.HTTPConnection(host, self.here.port, timeout=5)
        try:
            connection.request("GET", "/readyz", headers={"Host": f"127.0.0.1:{self.here.port}"})
            return str(json.load(connection.getresponse())["status"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return ""
        finally:
            connection.close()

    def _wait(
        self, condition: Callable[[], bool], seconds: float = float("inf"), failure: str = "", *, log: str = ""
    ) -> None:
        """Show the logs until `condition` holds; raise when we are to stop, time is up, or the supervisor is gone."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._show_logs()
            if self.stop_asked:
                raise Stopped
            if self.process.poll() is not None:
                raise StartFailed(f"The supervisor ended; its log is {shown(self.here.supervisor)}/supervisord.log.")
            if time.monotonic() > deadline:
                raise StartFailed(f"{failure} within {seconds:.0f} s. {self._see(log)}")
            time.sleep(0.05)

    def _take_down(self) -> None:
        in_order = self.supervisor.shut_down(self.process)
        self._show_logs()
        say("Stopped." if in_order else "Stopped by force: a service did not end in time.")

    def _end_leftovers(self) -> bool:
        """Stop what an earlier start left behind, and say whether it ended without taking its leave."""
        supervisor = self.supervisor.leftover()
        if supervisor is not None:
            say("An earlier Fleet of this directory is still ending; waiting for it.")
            self.supervisor.shut_down(supervisor)
        crashed = self.supervisor.pid_file.exists()
        self.supervisor.pid_file.unlink(missing_ok=True)
        self.supervisor.end_orphans()
        for server in (self.valkey, self.postgres):
            if server is not None:
                server.end_leftover()
        return crashed or supervisor is not None

    def _log_files(self) -> dict[str, Path]:
        """Return the logs worth following: our own. PostgreSQL and Valkey are only read when they fail."""
        embedded = {server.name for server in (self.postgres, self.valkey) if server}
        names = {service.name for service in services(self.here)} - embedded
        return {name: log_file(self.here, name) for name in ["prepare", *sorted(names)]}

    def _show_logs(self) -> None:
        for line in self.logs.new_lines():
            say(line)

    def _see(self, service: str) -> str:
        """Show the end of a service's log and say where all of it is."""
        self._show_logs()
        path = log_file(self.here, service)
        end = path.read_text(errors="replace").splitlines()[-8:] if path.exists() else []
        return "\n".join([f"The last lines of {shown(path)}:", *(f"  {line}" for line in end)])

    def _forget_old_schema(self) -> None:
        """Let the services wait for `prepare`, unless nothing changed since it last ended well."""
        stamp = self.here.schema_stamp
        if stamp.exists() and stamp.read_text() != schema_digest(self.environment["DATABASE_URL"]):
            stamp.unlink()

    @contextlib.contextmanager
    def _asked_to_stop_by_signals(self) -> Iterator[None]:
        def ask(number: int, frame: FrameType | None) -> None:
            self.stop_asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def up(here: Installation) -> None:
    """Run Fleet in the foreground until Ctrl-C."""
    Launch(here).run()


def schema_digest(database_url: str) -> str:
    """Return what changes when a migration or a package does, or when the data is another database's."""
    digest = hashlib.sha256(database_url.encode())
    digest.update((ROOT / "uv.lock").read_bytes())
    for path in sorted(ROOT.glob("*/migrations/*.py")) + sorted(ROOT.glob("fleet/*/migrations/*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()
