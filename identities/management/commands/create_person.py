"""`manage.py create_person <name> [--role ROLE …] [--email ADDRESS]`: let somebody in."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from identities import actions
from identities.permissions import Role


class Command(FleetCommand):
    """The person has no password; `manage.py signin_link --user <name>` gives them their first way in."""

    help = "Create a person with roles. They sign in by a one-time link and set a password themselves."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("name")
        parser.add_argument("--role", action="append", choices=Role.values, help="may be repeated; without it: viewer")
        parser.add_argument("--email", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        """Create the person and say what comes next."""
        roles = [Role(role) for role in options["role"] or [Role.VIEWER]]
        person = actions.create_person(
            username=options["name"], roles=roles, email=options["email"], by=Actor.system("create_person")
        )
        name = person.get_username()
        self.stdout.write(f"{name} is here ({', '.join(roles)}). Next: ./manage.py signin_link --user {name}")
