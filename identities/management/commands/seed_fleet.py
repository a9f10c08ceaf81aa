"""`manage.py seed_fleet`: load the sample company into an empty house."""

from __future__ import annotations

from typing import Any

from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from identities import actions


class Command(FleetCommand):
    """Does nothing when there is any bot already."""

    help = "Load the sample fleet of 14 bots when there is no bot yet."

    def handle(self, *args: Any, **options: Any) -> None:
        """Load it, or say that there is nothing to do."""
        count = actions.seed_fleet(by=Actor.system("seed_fleet"))
        self.stdout.write(f"{count} bots came." if count else "There are bots already; nothing was changed.")
