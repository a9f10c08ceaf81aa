"""`manage.py providers`: which CLIs are installed, whether they were checked, and `check` to do it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from execution import actions, queries
from execution.conformance import cases, checking
from execution.conformance.running import Result
from execution.providers import registry
from fleet.kernel import database
from fleet.kernel.actors import Actor
from fleet.kernel.commands import without_database
from fleet.management.usage import SpeakingCommand


class Command(SpeakingCommand):
    """Exit code 0 when everything asked about is well, 1 when something is not."""

    help = "Show the installed CLIs and whether they were checked; `check` asks them, with a model of our own and without a real key."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("verb", nargs="?", choices=["show", "check"], default="show")
        parser.add_argument(
            "name", nargs="?", default="all", help="a provider, `acp` for every agent of that kind, or `all`"
        )
        parser.add_argument(
            "--only", action="append", default=[], choices=list(cases.CASES), help="one case; nothing is stored"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Show or check, and leave with 0 or 1."""
        if options["verb"] == "show":
            sys.exit(self._show(_named(options["name"])))
        with nullcontext() if options["verbosity"] > 1 else _without_warnings():
            well = [self._check(name, options["only"]) for name in _named(options["name"])]
        sys.exit(0 if all(well) else 1)

    def _show(self, names: list[str]) -> int:
        checks = queries.last_checks()
        for name in names:
            provider, check = registry.get(name), checks.get(name)
            when = f"{check.at:%Y-%m-%d %H:%M} UTC, {check.version}" if check else "never"
            self.stdout.write(f"{name:12} {provider.version() or '?':12} checked {when}")
            if missing := provider.check():
                self.stdout.write(f"{'':12} {missing}")
            for case in check.cases if check else ():
                if not case["kept"]:
                    self.stdout.write(f"{'':12} {case['case']}: {case['sentence']}")
        doubts = queries.doubts(names)
        self.stdout.writelines(f"{doubt}\n" for doubt in doubts)
        return 1 if doubts else 0

    def _check(self, name: str, only: list[str]) -> bool:
        self.stdout.write(f"{name}\n")
        version, results = checking.check(name, told=self._tell, only=only)
        failed = sum(not result.kept for result in results)
        verdict = f"{failed} of {len(results)} cases failed." if failed else f"All {len(results)} cases are kept."
        self.stdout.write(f"{name} {version}: {verdict}\n\n")
        stored = only or self._store(name, version, results)
        return bool(stored) and not failed

    def _store(self, name: str, version: str, results: list[Result]) -> bool:
        """Keep what was found, which took a minute; where that fails it is said, and whoever is left is checked all the same."""
        try:
            actions.record_check(provider=name, version=version, results=results, by=Actor.system("providers check"))
        except database.AWAY as away:
            self.stderr.write(f"The result for {name} is not stored. {without_database(away).sentence}")
            return False
        return True

    def _tell(self, result: Result) -> None:
        self.stdout.write(
            f"  {result.case:16} {'kept' if result.kept else 'FAILED':7} {result.seconds:5.1f} s  {result.sentence}"
        )
        self.stdout.flush()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Refusals are what the check provokes: told in the middle of its lines they would read like trouble."""
    logger = logging.getLogger("execution.providers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _named(name: str) -> list[str]:
    known = checking.checkable(list(settings.FLEET_PROVIDERS))
    if name == "all":
        return known
    if name == "acp":
        if not settings.FLEET_ACP_AGENTS:
            raise CommandError("No agent is set up, so there is none to check. Name their file in FLEET_ACP_AGENTS.")
        return list(settings.FLEET_ACP_AGENTS)
    if name not in known:
        raise CommandError(f"There is nothing to check under “{name}”. Known are: {', '.join([*known, 'acp', 'all'])}.")
    return [name]
