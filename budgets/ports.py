"""What others hand to budgets, and what they get back. Budgets know no execution: ids are plain numbers and texts."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fleet.kernel.exceptions import Invalid

LARGEST = 10**11
"""No message uses more of anything; its cost still fits 64 bits."""

LONGEST_NAME = 120
"""Characters of a message's id, and of a model's name."""


@dataclass(frozen=True, slots=True)
class UsageUnits:
    """What one provider message used, in disjoint units; `reasoning` is the part of `output` that was thinking.

    `message_id` is the provider's. The same message may be reported again: the highest number of each unit counts.
    `at` is the message's own time (aware), where it is known; without it the time of the report counts.
    Raises Invalid for numbers and names that no provider message can have.
    """

    message_id: str
    model: str
    input_uncached: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    web_searches: int = 0
    at: dt.datetime | None = None

    def __post_init__(self) -> None:
        numbers = (self.reasoning, *self.units().values())
        if (
            min(numbers) < 0
            or max(numbers) > LARGEST
            or not (0 < len(self.message_id) <= LONGEST_NAME and len(self.model) <= LONGEST_NAME)
        ):
            raise Invalid("A provider reported usage that cannot be true.", why=repr(self)[:500])

    def units(self) -> dict[str, int]:
        """Return the quantity of every unit that has a price."""
        return {
            "input_uncached": self.input_uncached,
            "cache_read": self.cache_read,
            "cache_write_5m": self.cache_write_5m,
            "cache_write_1h": self.cache_write_1h,
            "output": self.output,
            "web_searches": self.web_searches,
        }


@dataclass(frozen=True, slots=True)
class Metered:
    """What a report added and what the reservation has cost so far. `exhausted` tells the worker to stop its run.

    `basis` is that of the total: priced, free, or unknown, when a model had no price and was counted at the dearest one.
    """

    cost_nano_usd: int
    total_nano_usd: int
    exhausted: bool
    basis: str
