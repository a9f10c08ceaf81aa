"""What each message used. Codex tells a thread's running total, cached tokens inside of the input: turned into differences here."""

from __future__ import annotations

from collections.abc import Mapping

from openai_codex.generated.v2_all import TokenUsageBreakdown

from execution.ports import Usage


class Counting:
    """Compares every total with the one before. `used` is the total so far, to be kept for the process that resumes the thread."""

    def __init__(self, used: Mapping[str, int]) -> None:
        self.used = dict(used)
        self.messages = 0

    def take(self, total: TokenUsageBreakdown, *, turn_id: str, model: str) -> Usage | None:
        """Return what was used since the last total; None when it was only repeated."""
        now = _numbers(total)
        more = {unit: number - self.used.get(unit, 0) for unit, number in now.items()}
        if min(more.values()) < 0:  # Codex sets the total back, for example when a context has run full
            more = now
        self.used = now
        if not any(more.values()):
            return None
        self.messages += 1
        return Usage(
            message_id=f"{turn_id}:{self.messages}",
            model=model,
            input_uncached=max(0, more["input"] - more["cached"] - more["written"]),
            cache_read=more["cached"],
            cache_write_5m=more["written"],
            output=more["output"],
            reasoning=more["reasoning"],
        )


def _numbers(total: TokenUsageBreakdown) -> dict[str, int]:
    return {
        "input": total.input_tokens,
        "cached": total.cached_input_tokens,
        "written": total.cache_write_input_tokens or 0,
        "output": total.output_tokens,
        "reasoning": total.reasoning_output_tokens,
    }
