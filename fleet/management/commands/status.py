"""`manage.py status`: what is really there, in one calm screen."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from execution import queries as execution_queries
from fleet import observations
from fleet.console.wording import duration
from fleet.kernel import clock
from fleet.management.usage import SpeakingCommand


class Command(SpeakingCommand):
    """Exit code 0 when every part is well, 1 when one is not."""

    help = "Show services, queues, live executions, the kill switch and how fresh each reading is."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--part", metavar="NAME", help="let the exit code speak of this part alone: a health check")

    def handle(self, *args: Any, **options: Any) -> None:
        """Read, print, and leave with 0 or 1."""
        reading = read()
        if options["json"]:
            self.stdout.write(json.dumps(reading, indent=2))
        else:
            self.stdout.write("\n".join(lines(reading)))
        if options["part"] and options["part"] not in reading["services"]:
            known = ", ".join(reading["services"])
            self.stderr.write(f"No part called “{options['part']}” could be read. There were: {known}.")
        sys.exit(0 if is_well(reading, options["part"]) else 1)


def is_well(reading: dict[str, Any], part: str | None) -> bool:
    """Say whether `part` is well, or every part when none is named."""
    if part is None:
        return bool(reading["healthy"])
    return part in reading["services"] and reading["services"][part]["state"] in observations.WELL


def read() -> dict[str, Any]:
    """Ask every part at the same time, and PostgreSQL for the rest once it is known to answer."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        probes = [pool.submit(probe) for probe in (observations.database, observations.broker, observations.web)]
        supervised = pool.submit(observations.supervised)
        parts = [probe.result() for probe in probes]
    reading: dict[str, Any] = {"read_at": clock.now().isoformat()}
    if parts[0].well:
        facts = _from_database()
        parts += facts.pop("parts")
        reading |= facts
    reading["supervised"] = supervised.result()
    reading["services"] = {part.name: asdict(part) for part in parts}
    reading["healthy"] = all(part.well for part in parts)
    return reading


def _from_database() -> dict[str, Any]:
    schema = observations.migrations()
    if not schema.well:
        return {"parts": [schema]}
    mode = execution_queries.execution_mode()
    return {
        "parts": [schema, observations.workers(), observations.runner(), observations.gateways()],
        "queues": asdict(observations.queues()),
        "executions": [asdict(row) for row in observations.live_executions()],
        "logins": [asdict(row) for row in observations.shut_logins()],
        "kill_orders": observations.orders_in_force(),
        "without_sandbox": observations.walls(),
        "mode": {"name": mode.mode, "sentence": mode.sentence},
        "doubts": execution_queries.doubts(),
    }


def lines(reading: dict[str, Any]) -> Iterable[str]:
    """Yield the screen."""
    if sentence := reading.get("mode", {}).get("sentence"):
        yield f"{sentence}\n"
    for sentence in reading.get("doubts", []):
        yield f"{sentence}\n"
    for sentence in reading.get("kill_orders", []):
        yield f"STOPPED  {sentence}\n"
    for sentence in reading.get("without_sandbox", []):
        yield f"NO SANDBOX  {sentence}\n"
    yield from _services(reading)
    yield from _logins(reading.get("logins", []))
    if "queues" in reading:
        yield from _queues(reading["queues"])
        yield from _executions(reading["executions"])
    yield f"\nRead at {reading['read_at'][:19]}Z. {'Everything is well.' if reading['healthy'] else 'Something needs attention.'}"


def _services(reading: dict[str, Any]) -> Iterable[str]:
    rows = [("SERVICE", "STATE", "SEEN", "")]
    for part in reading["services"].values():
        age = part["age_seconds"]
        rows.append(
            (part["name"], part["state"], "now" if age is not None and age < 1 else _ago(age), part["sentence"])
        )
    yield from table(rows)
    restless = {name: state for name, state in reading["supervised"].items() if state != "RUNNING"}
    if restless:
        yield "Supervisor says: " + ", ".join(f"{name} {state.lower()}" for name, state in restless.items())


def _logins(logins: list[dict[str, Any]]) -> Iterable[str]:
    if logins:
        yield ""
        rows = [("LOGIN", "STATE", "WHY", "UNTIL", "SINCE")]
        for row in logins:
            state, why = row["state"].replace("_", " "), row["cause"].replace("_", " ")
            until = "now" if row["state"] == "tried_next" else f"{row['until'][:16]}Z"
            rows.append((row["provider"], state, why, until, _ago(row["age_seconds"])))
        yield from table(rows)


def _queues(queues: dict[str, Any]) -> Iterable[str]:
    oldest = queues["oldest_waiting_seconds"]
    waiting = "  ".join(f"{name} {queues[name]}" for name in ("inbox", "turns", "executions", "outbox"))
    yield f"\nWaiting  {waiting}" + ("" if oldest is None else f"  (oldest {duration(oldest)})")


def _executions(executions: list[dict[str, Any]]) -> Iterable[str]:
    if not executions:
        yield "Running  nothing"
        return
    yield ""
    rows = [("EXECUTION", "BOT", "STATE", "AGE", "WORKER")]
    for row in executions:
        age = duration(row["age_seconds"])
        rows.append((str(row["id"]), row["identity"], row["state"], age, row["worker"] or "nobody yet"))
    yield from table(rows)


def _ago(age: float | None) -> str:
    return "never" if age is None else f"{duration(age)} ago"


def table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Yield the rows with their columns aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
