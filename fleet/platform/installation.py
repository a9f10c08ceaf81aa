"""Where this installation keeps its data and where it listens, from the environment and `.env`.

Beside the settings this is the one place that reads variables: it runs before there is a database to give to Django.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import environ

from fleet.platform import bounds
from fleet.platform.embedded import EmbeddedPostgres, EmbeddedValkey
from fleet.platform.private import write_private

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Installation:
    """One running Fleet: its `var` directory, its address, and the servers that were named instead of embedded ones."""

    var: Path
    host: str
    port: int
    database_url: str = ""
    redis_url: str = ""
    public_url: str = ""
    settings: str = ""  # Django's settings module for every service, where somebody has named one

    @classmethod
    def from_environment(cls) -> Installation:
        """Read FLEET_VAR, FLEET_HOST, FLEET_PORT, FLEET_PUBLIC_URL, DATABASE_URL, REDIS_URL and DJANGO_SETTINGS_MODULE.

        Raises ValueError with a sentence for a port that is none, and for numbers of the settings that nothing would work with.
        """
        env = environ.Env()
        env.read_env(ROOT / ".env")
        if complaint := bounds.complaint(os.environ):
            raise ValueError(complaint)
        return cls(
            var=Path(env.str("FLEET_VAR", default=str(ROOT / "var"))).resolve(),
            host=env.str("FLEET_HOST", default="127.0.0.1"),
            port=_port(env.str("FLEET_PORT", default="9600")),
            database_url=env.str("DATABASE_URL", default=""),
            redis_url=env.str("REDIS_URL", default=""),
            public_url=env.str("FLEET_PUBLIC_URL", default="").rstrip("/"),
            settings=env.str("DJANGO_SETTINGS_MODULE", default=""),
        )

    @property
    def url(self) -> str:
        """The address people are told."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def stopping(self) -> Path:
        """What is there while all of Fleet is being stopped; `FLEET_STOPPING_FILE` names it to the services."""
        return self.var / "stopping"

    @property
    def supervisor(self) -> Path:
        """Where the supervisor keeps its configuration, its pid and its log."""
        return self.var / "supervisor"

    @property
    def logs(self) -> Path:
        """One log per service."""
        return self.var / "log"

    @property
    def schema_stamp(self) -> Path:
        """Says that the database has the schema of this code; the services wait for it."""
        return self.var / "schema"

    def postgres(self) -> EmbeddedPostgres | None:
        """The embedded PostgreSQL, unless DATABASE_URL names another one."""
        return None if self.database_url else EmbeddedPostgres(self.var / "postgres")

    def valkey(self) -> EmbeddedValkey | None:
        """The embedded Valkey, unless REDIS_URL names another one."""
        return None if self.redis_url else EmbeddedValkey(self.var / "valkey")


def child_environment(here: Installation, *, database_url: str, redis_url: str) -> dict[str, str]:
    """Return what the services run with: our own environment and the addresses that were decided."""
    return {
        **os.environ,
        "FLEET_VAR": str(here.var),
        "FLEET_PORT": str(here.port),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def write_addresses(here: Installation, *, database_url: str, redis_url: str) -> None:
    """Leave the addresses where the settings of another process, for example `./manage.py say`, find them."""
    write_private(here.var / "servers.env", f"DATABASE_URL={database_url}\nREDIS_URL={redis_url}\n")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"FLEET_PORT is “{text}”, but a port is a number from 1 to 65535. Correct it and start again.")
    return int(text)
