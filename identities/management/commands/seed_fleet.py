"""`manage.py seed_fleet`: load the sample company into an empty house."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError
from identities import actions


class Command(BaseCommand):
    """Does nothing when there is any bot already."""

    help = "Load the sample fleet of 14 bots when there is no bot yet."

    def handle(self, *args: Any, **options: Any) -> None:
        """Load it, or say that there is nothing to do."""
        try:
            count = actions.seed_fleet(by=Actor.system("seed_fleet"))
        except FleetError as error:
            raise CommandError(error.sentence) from error
        self.stdout.write(f"{count} bots came." if count else "There are bots already; nothing was changed.")
