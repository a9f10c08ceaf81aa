"""The supervisor of `make run`: which services there are, how they start and in which order they stop."""

from __future__ import annotations

import contextlib
import http.client
import shlex
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from fleet.platform.confinement import is_root, tethered
from fleet.platform.installation import ROOT, Installation
from fleet.platform.leftovers import end_all, send
from fleet.platform.private import make_private, socket_directory, write_private
from fleet.platform.process import EmbeddedServer

STOP_SECONDS = 90.0
ORPHAN_SECONDS = 20.0
HELD = "fleet.platform.held"


@dataclass(frozen=True)
class Service:
    """One supervised process. Supervisor stops the highest `rank` first and waits for it: the database goes last.

    A service that ends within `starts_in` seconds is started again after 1, 2, 3 ... seconds, later ones at once.
    """

    name: str
    rank: int
    command: list[str]
    stop_signal: signal.Signals = signal.SIGTERM
    stops_in: int = 10
    starts_in: int = 5
    settings: str = ""  # Django's settings module; for what runs on Django


def services(here: Installation) -> list[Service]:
    """Return the services of `make run`."""
    manage = str(ROOT / "manage.py")
    web = ["-m", "daphne", "-v", "0", "-b", here.host, "-p", str(here.port), "fleet.asgi:application"]
    # Without pages a service is there sooner and takes a third less memory.
    headless = here.settings or "fleet.settings.headless"
    return [
        *_servers(here),
        Service("runner", 30, _on_django(here, [manage, "runner"]), settings=headless),
        Service("worker", 40, _on_django(here, [manage, "worker"]), settings=headless, stops_in=20),
        Service("web", 50, _on_django(here, web), settings=here.settings or "fleet.settings.base"),
        Service("gateways", 60, _on_django(here, [manage, "gateways"]), settings=headless),
    ]


def _servers(here: Installation) -> list[Service]:
    """Return the embedded servers. Each waits for what a killed one has left, and is tied to the supervisor."""
    found = []
    if (postgres := here.postgres()) is not None:
        found.append(
            Service("postgres", 10, _alone(postgres), stop_signal=postgres.stop_signal, stops_in=30, starts_in=1)
        )
    if (valkey := here.valkey()) is not None:
        found.append(Service("valkey", 20, _alone(valkey), stop_signal=valkey.stop_signal, starts_in=1))
    return found


def _alone(server: EmbeddedServer) -> list[str]:
    return tethered(server.leftovers.clearing(server.command()), sends=server.stop_signal)


def _on_django(here: Installation, program: list[str]) -> list[str]:
    """Return the command of a service that waits for the schema and ends with the supervisor."""
    command = [sys.executable, "-m", HELD, str(here.schema_stamp), *program]
    return tethered(command, sends=signal.SIGTERM)


class Supervisor:
    """supervisord for one `var`: its configuration, its process, and the commands it takes over its socket."""

    def __init__(self, here: Installation) -> None:
        self.here = here
        self.configuration = here.supervisor / "supervisord.conf"
        self.pid_file = here.supervisor / "supervisord.pid"
        self.socket = socket_directory(here.supervisor) / "supervisor.sock"

    def start(self, wanted: list[Service], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start supervisord with these services. It stops them all when we end, however we end."""
        for directory in (self.here.supervisor, self.here.logs, self.socket.parent):
            make_private(directory)
        write_private(self.configuration, self._configuration_text(wanted))
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self.configuration)]
        return subprocess.Popen(
            tethered(command, sends=signal.SIGTERM), cwd=self.here.var, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def states(self) -> dict[str, str]:
        """Return what supervisord says of each service, such as {"web": "RUNNING"}; empty when it does not run."""
        try:
            found: Any = self._remote().supervisor.getAllProcessInfo()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return {}
        return {str(service["name"]): str(service["statename"]) for service in found}

    def nudge(self) -> None:
        """Make supervisord look around now: by itself it starts and buries processes only once a second."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(self.socket))

    def shut_down(self, process: psutil.Process | subprocess.Popen[bytes]) -> bool:
        """Stop every service in order, then the supervisor; False when it had to be killed."""
        self.here.stopping.touch()  # workers see it: nobody will come to go on with what they run
        try:
            self._remote().supervisor.shutdown()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                process.wait(0.05)
                return True
            self.nudge()
        process.kill()
        return False

    def leftover(self) -> psutil.Process | None:
        """Return the supervisor of this `var` that an earlier start left behind, if it lives."""
        try:
            process = psutil.Process(int(self.pid_file.read_text()))
            return process if str(self.configuration) in process.cmdline() else None
        except (OSError, ValueError, psutil.Error):
            return None

    def end_orphans(self) -> None:
        """End the services of this `var` that outlived their supervisor: they were told, and get as long as an orderly stop gives them.

        A frozen one hears it once it goes on. Raises StillThere.
        """
        orphans = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if {HELD, str(self.here.schema_stamp)} <= set(process.cmdline()):
                    orphans.append(process)
        for number in (signal.SIGCONT, signal.SIGTERM):
            send(orphans, number)
        end_all(orphans, ORPHAN_SECONDS, of="service of Fleet")

    def _remote(self) -> xmlrpc.client.ServerProxy:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def _configuration_text(self, wanted: list[Service]) -> str:
        sections: dict[str, dict[str, object]] = {
            "unix_http_server": {"file": self.socket, "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "supervisord": {
                "logfile": self.here.supervisor / "supervisord.log",
                "logfile_maxbytes": "1MB",
                "logfile_backups": 1,
                "pidfile": self.pid_file,
                **({"user": "root"} if is_root() else {}),
            },
            **{f"program:{service.name}": self._program(service) for service in wanted},
        }
        return "\n".join(_section(name, values) for name, values in sections.items())

    def _program(self, service: Service) -> dict[str, object]:
        return {
            "command": shlex.join(service.command),
            **({"environment": f'DJANGO_SETTINGS_MODULE="{service.settings}"'} if service.settings else {}),
            "directory": ROOT,
            "umask": "077",
            "priority": service.rank,
            "autostart": "true",
            "autorestart": "true",
            "startsecs": service.starts_in,
            "startretries": 1_000_000,
            "stopsignal": service.stop_signal.name.removeprefix("SIG"),
            "stopwaitsecs": service.stops_in,
            "killasgroup": "true",
            "redirect_stderr": "true",
            # Relative to `var`, where supervisord runs: it reads percent signs in this one value twice.
            "stdout_logfile": log_file(self.here, service.name).relative_to(self.here.var),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 3,
        }


def log_file(here: Installation, service: str) -> Path:
    """Return where a service's output goes."""
    return here.logs / f"{service}.log"


def _section(name: str, values: dict[str, object]) -> str:
    # A percent sign begins an expression in supervisor's configuration, and doubled it is itself.
    lines = [f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])
