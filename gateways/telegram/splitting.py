"""Cuts a long Markdown text into pieces that Telegram takes, with every code fence whole and, where it can be, every paragraph.

Lengths are UTF-16 units, as Telegram counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"[ \t]*(`{3,16}(?!`)|~{3,16}(?!~))([^`]*)$")
_LONGEST_CLOSING = 17  # a line break and the longest marker
_LONGEST_INFO = 20
# A good place for a cut is taken only where it leaves the piece at least this full.
_FULL_ENOUGH = 0.4

# How good a place for a cut is; smaller is better.
_BETWEEN_BLOCKS, _BETWEEN_LINES, _INSIDE_FENCE = range(3)


@dataclass(frozen=True, slots=True)
class Fence:
    """An open code fence: its marker, and its language as far as it is worth repeating."""

    marker: str
    info: str

    @property
    def opening(self) -> str:
        """Return the line that opens it again in the next piece."""
        return f"{self.marker}{self.info}\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the source, and the fences that make it a text of its own: one to open before it, one to close after it.

    The bodies of all pieces, joined, are the source.
    """

    body: str
    before: Fence | None = None
    after: Fence | None = None

    @property
    def markdown(self) -> str:
        """Return the piece with its fences."""
        opening = self.before.opening if self.before else ""
        if self.after is None:
            return opening + self.body
        line_break = "" if self.body.endswith("\n") else "\n"
        return opening + self.body + line_break + self.after.marker


def units(text: str) -> int:
    """Return the length of `text` in UTF-16 units."""
    return len(text) + sum(character > "\uffff" for character in text)


def split(text: str, limit: int) -> list[Piece]:
    """Return the pieces of `text`, each at most `limit` units long as `markdown`; `limit` is at least 100."""
    pieces: list[Piece] = []
    fence: Fence | None = None
    while True:
        opening = units(fence.opening) if fence else 0
        if opening + units(text) + _LONGEST_CLOSING <= limit:
            break
        cut = _cut(_prefix(text, limit - opening - _LONGEST_CLOSING), fence)
        body, text = text[:cut], text[cut:]
        after = _fence_after(body, fence)
        pieces.append(Piece(body, fence, after))
        fence = after
    if text or not pieces:
        pieces.append(Piece(text, fence, _fence_after(text, fence)))
    return pieces


def _prefix(text: str, room: int) -> str:
    """Return the longest beginning of `text` with at most `room` units."""
    prefix = text[:room]
    while (excess := units(prefix) - room) > 0:
        prefix = prefix[: -((excess + 1) // 2)]
    return prefix


def _cut(prefix: str, fence: Fence | None) -> int:
    """Return where to cut: between blocks, else lines, else words, else at the end; early places count only when nothing later does."""
    least = int(len(prefix) * _FULL_ENOUGH)
    best: dict[int, int] = {}
    for place, rank in _places(prefix, fence):
        if place >= least:
            best[rank] = place
    if best:
        return best[min(best)]
    word = prefix.rfind(" ") + 1
    return word if word >= least and word else len(prefix)


def _places(prefix: str, fence: Fence | None) -> Iterator[tuple[int, int]]:
    """Yield (position, rank) of every beginning of a line after the first."""
    position = 0
    for line in prefix.split("\n")[:-1]:
        before, fence = fence, _after_line(line, fence)
        if before is None and fence is not None and position:
            yield position, _BETWEEN_BLOCKS
        position += len(line) + 1
        ends_block = fence is None and (before is not None or not line.strip())
        yield position, _BETWEEN_BLOCKS if ends_block else _INSIDE_FENCE if fence else _BETWEEN_LINES


def _fence_after(body: str, fence: Fence | None) -> Fence | None:
    """Return the fence that is open at the end of `body`."""
    for line in body.split("\n"):
        fence = _after_line(line, fence)
    return fence


def _after_line(line: str, fence: Fence | None) -> Fence | None:
    match = _FENCE.match(line)
    if match is None:
        return fence
    marker, info = match[1], match[2].strip()
    if fence is None:
        language = info.split()[0] if info else ""
        return Fence(marker, language if units(language) <= _LONGEST_INFO else "")
    closes = marker[0] == fence.marker[0] and len(marker) >= len(fence.marker) and not info
    return None if closes else fence
