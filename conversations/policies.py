"""Rules of conversations: what text is acceptable and how long a queue may grow."""

from __future__ import annotations

from fleet.kernel.exceptions import Refused

MAX_TEXT_BYTES = 64 * 1024
QUEUE_CAP = 20
STOP_WORDS = frozenset({"stop", "halt", "cancel"})


def readable(text: str) -> str:
    """Return `text` as PostgreSQL can keep it: NUL and lone surrogates become U+FFFD, and no more than the limit."""
    clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    return clean[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def check_text(text: str) -> None:
    """Raise Refused for a text no bot can answer: empty, too long, or not proper Unicode."""
    if not text.strip():
        raise Refused("The message is empty.", next_step="Write what you want and send it again.", code="empty")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        size = -1
    if size < 0 or "\x00" in text:
        raise Refused(
            "The message is not readable text.",
            why="It holds characters that are not valid Unicode.",
            next_step="Send it again as plain text.",
            code="unreadable",
        )
    if size > MAX_TEXT_BYTES:
        raise Refused(
            f"The message is too long: {size // 1024} kB.",
            why=f"A message may have at most {MAX_TEXT_BYTES // 1024} kB.",
            next_step="Send a shorter one, or put the material where the bot can read it.",
            code="too_long",
        )


def check_queue(waiting: int) -> None:
    """Raise Refused when a conversation already has as many waiting messages as it may have."""
    if waiting >= QUEUE_CAP:
        raise Refused(
            "The queue of this conversation is full.",
            why=f"{waiting} messages are waiting already.",
            next_step="Wait for an answer, or send /stop to clear the queue, then send it again.",
            code="queue_full",
        )


def is_stop_word(text: str) -> bool:
    """Return whether a plain text means stop."""
    return text.strip().strip(".!").lower() in STOP_WORDS
