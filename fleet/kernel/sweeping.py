"""How a sweep goes through its rows: each for itself, so that one that cannot be handled does not stand in the way of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog

from fleet.kernel import database
from fleet.kernel.exceptions import StateConflict

log = structlog.get_logger(__name__)
Key = TypeVar("Key")


def each(step: Callable[[Key], object], keys: Iterable[Key], *, what: str) -> int:
    """Call `step` for every key and return how many it touched (a true answer); one that fails is logged and left for the next round.

    Somebody who was faster (StateConflict) is no failure: sweeps run in several processes at once, and beside the work itself.
    `what` names the step in the log. A database that is away ends the round: its error is raised.
    """
    return sum(_touched(step, key, what) for key in keys)


def _touched(step: Callable[[Key], object], key: Key, what: str) -> bool:
    try:
        return bool(step(key))
    except StateConflict:
        return False
    except database.AWAY:
        raise
    except Exception:
        log.exception("sweep.row_failed", what=what, row=str(key))
        return False
