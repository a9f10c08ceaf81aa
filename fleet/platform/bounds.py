"""The least that numbers among the settings may be: below it nothing would work, and nobody would see why."""

from __future__ import annotations

from collections.abc import Mapping

# Name: the least, and what to do instead of going below.
LEAST: dict[str, tuple[float, str]] = {
    "FLEET_WORKER_SLOTS": (1, "a worker without slots runs nothing; to stop all bots use the kill switch"),
    "FLEET_WORKER_GRACE_SECONDS": (0, "0 gives running turns no time"),
    "FLEET_DETACHED_SECONDS": (0, "0 waits for no other worker"),
    "FLEET_WARM_PROCESSES": (0, "0 keeps none"),
    "FLEET_WARM_SECONDS": (1, "to keep no process, set FLEET_WARM_PROCESSES=0"),
    "FLEET_WARM_MEGABYTES": (300, "a CLI takes some 280 MB; to keep no process, set FLEET_WARM_PROCESSES=0"),
    "FLEET_PREWARMED_PROCESSES": (0, "0 keeps none ready"),
    "FLEET_RETRY_SECONDS": (0, "0 goes to the next of the chain at the first wait"),
    "FLEET_STALL_SECONDS": (10, "a model that thinks is silent for longer"),
    "FLEET_REPEATED_CALLS": (0, "0 lets bots repeat themselves"),
    "FLEET_LONGEST_WAIT_HOURS": (0, "0 refuses every message whose logins are left alone"),
    "FLEET_TRANSCRIPT_DAYS": (1, "to keep no copies, leave FLEET_TRANSCRIPT_MIRROR out"),
    "FLEET_DATABASE_POOL": (2, "a process needs one connection for its work and one for its clocks"),
}


def complaint(given: Mapping[str, object]) -> str:
    """Return what is wrong with the first number that is none, or too small, and what to write; empty when all are well."""
    for name, (least, instead) in LEAST.items():
        text = str(given.get(name, "")).strip()
        if text and not _at_least(text, least):
            return (
                f"{name} is “{text[:40]}”: choose a number from {least:g} on ({instead}). Correct it and start again."
            )
    return ""


def _at_least(text: str, least: float) -> bool:
    try:
        return float(text) >= least  # not a number is never at least anything
    except ValueError:
        return False
