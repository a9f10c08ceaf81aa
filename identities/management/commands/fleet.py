"""`manage.py fleet export` and `manage.py fleet apply <file> [--dry-run]`: the fleet as one YAML file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from fleet.kernel.actors import Actor
from fleet.kernel.commands import FleetCommand
from identities import actions, queries
from identities.queries.declared import Change


class Command(FleetCommand):
    """What a file says and what the database holds are compared field by field; the same file twice changes nothing."""

    help = "Write the fleet as YAML (export), or make it what a YAML file says (apply, with --dry-run only show it)."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the two verbs."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("export", help="write every bot as YAML to the terminal")
        apply = verbs.add_parser("apply", help="make the fleet what the file says")
        apply.add_argument("file", type=Path)
        apply.add_argument("--dry-run", action="store_true", help="only show what would change")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the verb."""
        if options["verb"] == "export":
            self.stdout.write(actions.write_declaration(queries.declared_fleet()), ending="")
        else:
            self._apply(options["file"], dry_run=options["dry_run"])

    def _apply(self, file: Path, *, dry_run: bool) -> None:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}.") from error
        declared = actions.read_declaration(text)
        by = Actor.system("fleet apply")
        # A dry run does everything and takes it back, so that what would be refused is refused here too.
        with transaction.atomic():
            changes = actions.apply_fleet(declared=declared, by=by, owner=actions.ensure_first_person(by=by))
            transaction.set_rollback(dry_run)
        for change in changes:
            self.stdout.write(described(change))
        count = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
        self.stdout.write(f"{count}{', none made (dry run)' if dry_run and changes else ''}.")


def described(change: Change) -> str:
    """Return a change as a person reads it: one line, or the changed lines of a longer text."""
    before, after = change.before, change.after
    if "\n" not in (before or "") + (after or ""):
        return f"{change.slug}: {change.field}: {_shown(before)} -> {_shown(after)}"
    lines = difflib.unified_diff((before or "").splitlines(), (after or "").splitlines(), lineterm="", n=1)
    return "\n".join([f"{change.slug}: {change.field}:", *(f"    {line}" for line in list(lines)[2:])])


def _shown(value: str | None) -> str:
    return "(not there)" if value is None else value or "(empty)"
