"""`manage.py sandbox`: who runs without a sandbox, and letting a bot do so (`waive`) or no more (`restore`)."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from execution import sandbox
from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from identities import actions, queries


class Command(FleetCommand):
    """Without a verb it tries whether this machine can build a sandbox, and lists the waivers."""

    help = "Show whether sandboxes work here and which bots need none; waive one for a bot, or restore it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the verbs."""
        verbs = parser.add_subparsers(dest="verb")
        waive = verbs.add_parser("waive", help="let a bot's CLI run without a sandbox")
        waive.add_argument("bot")
        waive.add_argument("--because", required=True, help="why; everybody can read it")
        verbs.add_parser("restore", help="end a bot's waiver").add_argument("bot")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the verb, and show what holds then."""
        by = Actor.system("command line")
        if options["verb"] == "waive":
            bot = queries.get_identity(options["bot"])
            actions.waive_sandbox(identity=bot, because=options["because"], by=by)
        elif options["verb"] == "restore":
            actions.restore_sandbox(identity=queries.get_identity(options["bot"]), by=by)
        self._show()

    def _show(self) -> None:
        self.stdout.write(sandbox.reason_for_none() or "Sandboxes work on this machine.")
        for bot in queries.unsandboxed():
            self.stdout.write(f"{bot.slug} may run without one, because: {bot.sandbox_waiver}")
