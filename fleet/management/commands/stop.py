"""`manage.py stop`: throw the kill switch from a terminal. Needs only the database."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import CommandParser

from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from fleet.management.usage import seconds
from governance import actions, queries
from governance.models import KillOrder
from governance.states import KillMode, KillScope, OrderState
from identities import queries as identity_queries

MAY_STILL_LIVE = 3  # the exit code when the order is in force and not everything was seen gone in time


class Command(FleetCommand):
    """Stops the fleet or one bot, and shows the receipt as it is written."""

    help = "Stop all bots, or one: nothing new starts, and running processes are killed (or, with --drain, finish)."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("identity", nargs="?", default="", help="a bot's slug; without it the whole fleet")
        parser.add_argument("--reason", required=True, help="why; the people it stops will read it")
        parser.add_argument("--drain", action="store_true", help="let running work finish")
        parser.add_argument("--wait", type=seconds, default=10.0, help="seconds to wait for silence (default 10)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Give the order, wait for silence, print the receipt."""
        order = self._give(options["identity"], options)
        give_up = time.monotonic() + options["wait"]
        while order.state == OrderState.STOPPING and time.monotonic() < give_up:
            time.sleep(0.1)
            order.refresh_from_db()
        if not self._print_receipt(order):
            sys.exit(MAY_STILL_LIVE)

    def _give(self, slug: str, options: dict[str, Any]) -> KillOrder:
        if slug:
            identity_queries.get_identity(slug)  # a misspelt name must not read as a bot that fell silent
        return actions.stop(
            scope=KillScope.IDENTITY if slug else KillScope.FLEET,
            scope_id=slug,
            mode=KillMode.DRAIN if options["drain"] else KillMode.STOP,
            reason=options["reason"],
            by=Actor.system("command line"),
        )

    def _print_receipt(self, order: KillOrder) -> bool:
        """Print what became quiet and what did not; return whether everything is."""
        still = list(queries.open_lines(order))
        for line in still:
            self.stdout.write(f"still alive: {line.kind} {line.subject}")
        for line in order.lines.exclude(quiet_at=None).order_by("quiet_at"):
            if line.quiet_at:
                after = (line.quiet_at - order.ordered_at).total_seconds() * 1000
                self.stdout.write(f"quiet after {after:.0f} ms: {line.kind} {line.subject} {line.sentence}".rstrip())
        verdict = f"{len(still)} still alive" if still else "everything is quiet"
        self.stdout.write(f"Order {order.pk}: {verdict}. Lift it with ./manage.py resume {order.pk} --reason …")
        return not still
