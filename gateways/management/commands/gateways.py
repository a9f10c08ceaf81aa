"""`manage.py gateways`: run the gateway process."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import CommandParser
from django.db import connection

from fleet.kernel.commands import ServiceCommand
from gateways.service import serve


class Command(ServiceCommand):
    """One process serves all bots; `--only` splits them over several."""

    help = "Carry messages between chat platforms and bots, until it is told to end."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--only", nargs="+", metavar="SLUG", default=[], help="serve only these bots")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until SIGTERM or SIGINT."""
        asyncio.run(serve(options["only"]))
        connection.close_pool()  # type: ignore[attr-defined]  # only PostgreSQL has one
