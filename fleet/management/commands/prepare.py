"""`manage.py prepare`: make the database ready, load the sample fleet once, and print a one-time sign-in link."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandParser
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from budgets import actions as budget_actions
from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from gateways import actions as gateway_actions
from governance import actions as governance_actions
from identities import actions as identity_actions


class Command(FleetCommand):
    """One process instead of five at every start; each step does nothing when its work is done already."""

    help = "Migrate, load the sample fleet, prices, budgets and policy once, and print a one-time sign-in link."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--no-sample", action="store_true", help="do not load the sample fleet into an empty database"
        )
        parser.add_argument("--no-link", action="store_true", help="do not print a sign-in link")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the steps in order."""
        by = Actor.system("prepare")
        migrate_when_needed()
        governance_actions.ensure_default_policy(by=by)
        if not options["no_sample"]:
            identity_actions.seed_fleet(by=by)
        person = identity_actions.ensure_first_person(by=by)
        budget_actions.import_prices(by=by)
        budget_actions.ensure_default_budgets(by=by)
        gateway_actions.take_over_tokens(settings.FLEET_TELEGRAM_TOKENS, by=by)
        if not options["no_link"]:
            token = identity_actions.issue_sign_in_link(person=person, by=by)
            self.stdout.write(f"{settings.FLEET_PUBLIC_URL}/sign-in/{token}/")


def migrate_when_needed() -> None:
    """Run the migrations unless all of them are applied."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=0)
