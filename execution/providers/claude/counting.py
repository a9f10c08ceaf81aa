"""What a process used, message by message, and the rest that no message tells: the CLI asks its API for things of its own, too."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from execution.ports import Usage

_SYNTHETIC = "<synthetic>"  # the model of messages that the CLI writes itself, such as API errors
_TOTALS = {
    "input_uncached": "inputTokens",
    "cache_read": "cacheReadInputTokens",
    "output": "outputTokens",
    "web_searches": "webSearchRequests",
}


class Counting:
    """Keeps the highest numbers of each message, so that the CLI's totals can be compared with them. For any thread."""

    def __init__(self) -> None:
        self._highest: dict[str, Usage] = {}
        self._lock = threading.Lock()

    def of_message(self, message_id: str, model: str, counts: Mapping[str, Any] | None) -> Usage | None:
        """Return the highest counts of one message so far, in our units; None when there is nothing to count.

        A message is told more than once, and its end may tell its output alone: what a report leaves out stays as it was told.
        """
        if not counts or not message_id or model == _SYNTHETIC:
            return None
        with self._lock:
            before = self._highest.get(message_id, Usage(message_id, model))
            told = in_our_units(message_id, model, counts, before)
            if not told.is_believable():
                return told  # as it was told: whoever meters it has to know
            self._highest[message_id] = usage = told.at_least(before)
            return usage

    def of_line(self, entry: Mapping[str, Any]) -> Usage | None:
        """Return the same of a message that stands in a line of a transcript; None when the line is none that a CLI writes."""
        message = entry.get("message") or {}
        try:
            return self.of_message(str(message.get("id", "")), str(message.get("model", "")), message.get("usage"))
        except (AttributeError, TypeError, ValueError, OverflowError):  # a bot's own tools could have written it
            return None

    def kept(self) -> list[dict[str, Any]]:
        """Return what has been counted so far, for a worker that goes on with the process."""
        with self._lock:
            return [asdict(usage) for usage in self._highest.values()]

    def restore(self, kept: list[dict[str, Any]]) -> None:
        """Go on from what another worker had counted."""
        self._highest = {str(number): Usage(**usage) for number, usage in enumerate(kept)}

    def rest(self, totals: Mapping[str, Mapping[str, Any]] | None, *, session_id: str) -> Usage | None:
        """Return what the CLI's totals of a fresh process have above what we have counted; None when there is nothing.

        The totals are compared as a whole, since a model may go by two names; the rest is put to the model that is missing most.
        """
        if not totals:
            return None
        with self._lock:
            usage = self._missing(totals, message_id=f"rest:{session_id}")
            if usage is not None:  # the next turn of the same process must not count it again
                self._highest[f"rest:{len(self._highest)}"] = usage
            return usage

    def _missing(self, totals: Mapping[str, Mapping[str, Any]], *, message_id: str) -> Usage | None:
        units = {unit: _sum(totals, name) - self._seen(unit) for unit, name in _TOTALS.items()}
        short, long = _written(totals)
        units |= {
            "cache_write_5m": short - self._seen("cache_write_5m"),
            "cache_write_1h": long - self._seen("cache_write_1h"),
        }
        units = {unit: max(0, number) for unit, number in units.items()}
        return Usage(message_id=message_id, model=self._missing_most(totals), **units) if any(units.values()) else None

    def _seen(self, unit: str, model: str | None = None) -> int:
        return sum(getattr(usage, unit) for usage in self._highest.values() if model in (None, usage.model))

    def _missing_most(self, totals: Mapping[str, Mapping[str, Any]]) -> str:
        return max(totals, key=lambda model: _number(totals[model], "outputTokens") - self._seen("output", model))


def in_our_units(message_id: str, model: str, counts: Mapping[str, Any], before: Usage) -> Usage:
    """Return what one report of the CLI says. `before` is what was told of the message until then."""
    short, long = _written_by(counts, before)
    return Usage(
        message_id=message_id,
        model=model,
        input_uncached=_number(counts, "input_tokens"),
        cache_read=_number(counts, "cache_read_input_tokens"),
        cache_write_5m=short,
        cache_write_1h=long,
        output=_number(counts, "output_tokens"),
        reasoning=_number(counts.get("output_tokens_details") or {}, "thinking_tokens"),
        web_searches=_number(counts.get("server_tool_use") or {}, "web_search_requests"),
    )


def _number(counts: Mapping[str, Any], name: str) -> int:
    return int(counts.get(name) or 0)


def _written_by(counts: Mapping[str, Any], before: Usage) -> tuple[int, int]:
    """Return one message's cache writes of five minutes and of an hour; one number for both is split as the message was before."""
    split = counts.get("cache_creation")
    if split:
        return _number(split, "ephemeral_5m_input_tokens"), _number(split, "ephemeral_1h_input_tokens")
    long = before.cache_write_1h
    return max(0, _number(counts, "cache_creation_input_tokens") - long), long


def _sum(totals: Mapping[str, Mapping[str, Any]], name: str) -> int:
    return sum(_number(total, name) for total in totals.values())


def _written(totals: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Return cache writes of five minutes and of an hour; what a CLI does not split counts as the short ones."""
    long = _sum(totals, "cacheCreationEphemeral1hInputTokens")
    return max(0, _sum(totals, "cacheCreationInputTokens") - long), long
