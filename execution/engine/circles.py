"""Noticing that a model does the same again and again: one call many times in a row, or a few calls round and round."""

from __future__ import annotations

from collections import deque

LONGEST_ROUND = 3  # A, A, A … / A, B, A, B … / A, B, C, A, B, C …


class Circles:
    """Hears the tool calls of one attempt. `most` is how often a round may come in a row; 0 lets everything pass."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: deque[str] = deque(maxlen=max(most, 1) * LONGEST_ROUND)
        self._tools: deque[str] = deque(maxlen=LONGEST_ROUND)
        self.round: tuple[str, ...] = ()  # the tools of the round that came too often

    def hear(self, tool: str, digest: str) -> None:
        """Note a call by the digest of its tool and input; a call without a digest is like no other."""
        if not digest or not self._most:
            self._calls.clear()
            return
        self._calls.append(digest)
        self._tools.append(tool)
        for length in range(1, LONGEST_ROUND + 1):
            if self._came_round(length):
                self.round = tuple(self._tools)[-length:]
                return

    def _came_round(self, length: int) -> bool:
        calls = list(self._calls)[-length * self._most :]
        return len(calls) == length * self._most and calls == calls[:length] * self._most

    @property
    def sentence(self) -> str:
        """Return what a person is told of the round."""
        named = " and ".join(self.round)
        calls = f"the same call of {named}" if len(self.round) == 1 else f"the same calls of {named}"
        return (
            f"It made {calls} {self._most} times in a row and came no further, so it was stopped. "
            "Say what it should do differently, or what stands in its way."
        )
