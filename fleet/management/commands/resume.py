"""`manage.py resume`: lift a kill order from a terminal."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from governance import actions, queries


class Command(FleetCommand):
    """Lifts one order, or the only one in force. Nothing that was stopped starts again by itself."""

    help = "Lift a kill order. Nothing resumes by itself; people send again what they still want."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "order", nargs="?", type=int, help="the order's number; may be left out when only one holds"
        )
        parser.add_argument("--reason", required=True, help="why it may go on")

    def handle(self, *args: Any, **options: Any) -> None:
        """Find the order and lift it."""
        active = queries.active_orders()
        wanted = [order for order in active if options["order"] in (None, order.pk)]
        if len(wanted) != 1:
            known = ", ".join(f"{order.pk} ({order})" for order in active) or "none"
            raise CommandError(f"Say which order to lift. In force: {known}.")
        actions.lift(order=wanted[0], reason=options["reason"], by=Actor.system("command line"))
        self.stdout.write(f"Order {wanted[0].pk} is lifted.")
