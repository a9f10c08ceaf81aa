"""`manage.py pairing_code`: a one-time code that connects a chat account with a person."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from identities import actions, queries


class Command(FleetCommand):
    """Prints the code first, so that scripts can take it, and what to do with it after it."""

    help = "Make a one-time pairing code: send it to a bot as /pair CODE, and your chat account is known."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--user", default="", help="whose account it will be (default: the first administrator)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Issue the code."""
        person = queries.get_person(options["user"]) if options["user"] else queries.first_admin()
        if person is None:
            raise CommandError("There is nobody yet. Run ./manage.py create_person first.")
        code, expires_at = actions.issue_pairing_code(person=person, by=Actor.system("command line"))
        self.stdout.write(f"{code}  send it to a bot as: /pair {code}  (valid until {expires_at:%H:%M} UTC)")
