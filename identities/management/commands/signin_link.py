"""`manage.py signin_link [--user NAME]`: print a one-time link that signs somebody in."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.urls import reverse

from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from identities import actions, queries


class Command(FleetCommand):
    """Whoever can run commands on this machine holds the keys already; the link only saves typing a password."""

    help = "Print a sign-in link that works once, for 15 minutes. Without --user it is for the first administrator."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--user", default="", help="the person's sign-in name")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the link."""
        by = Actor.system("signin_link")
        person = queries.get_person(options["user"]) if options["user"] else actions.ensure_first_person(by=by)
        token = actions.issue_sign_in_link(person=person, by=by)
        self.stdout.write(settings.FLEET_PUBLIC_URL + reverse("identities:sign_in_link", kwargs={"token": token}))
