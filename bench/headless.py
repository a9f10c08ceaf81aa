"""A database and a Valkey of their own, migrated and with prices, budgets and policy, for benchmarks that start workers themselves."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.platform.embedded import throw_away_servers


@contextmanager
def headless() -> Iterator[Path]:
    """Set up Django on them, and yield a directory that goes with them."""
    with tempfile.TemporaryDirectory() as directory, throw_away_servers() as servers:
        os.environ |= {
            "DATABASE_URL": servers.postgres.url,
            "REDIS_URL": servers.valkey.url,
            "FLEET_VAR": f"{directory}/var",
            "FLEET_LOG_LEVEL": "ERROR",
            "DJANGO_SETTINGS_MODULE": "fleet.settings.headless",
        }
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from tests.factories import execution as made

        made.set_the_table()
        yield Path(directory)
