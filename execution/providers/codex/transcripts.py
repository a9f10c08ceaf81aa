"""What Codex has written down of a turn, in its own transcript of the thread: all that is left when nobody heard its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openai_codex.generated.v2_all import TokenUsageBreakdown

from execution.ports import Recovered, Usage
from execution.providers.codex.counting import Counting
from execution.providers.codex.threads import Threads
from execution.sandbox import open_plain

_BETWEEN_TEXTS = "\n\n"


def recover(configuration: Path, session_id: str, uuid: str) -> Recovered | None:
    """Return what was written of the turn with this last message; None when Codex never took it down.

    Raises OSError when it is no file that a CLI writes.
    """
    threads = Threads(configuration)
    thread = threads.find(session_id)
    path = threads.transcript_of(thread.id) if thread else None
    if thread is None or path is None:
        return None
    reading = _Reading(uuid, thread.base)
    for kind, told in _entries(path):
        reading.take(kind, told)
    return reading.recovered()


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind of each line and what it tells."""
    with open_plain(path) as file:
        for line in file:
            try:
                entry = json.loads(line)
                told = entry["payload"]
                kind = told["type"] if entry["type"] == "event_msg" else entry["type"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # the last line of one that was killed while it wrote
            yield str(kind), told


class _Reading:
    """Reads a thread up to one turn, whose tokens are what its totals have above the last one before: so they are named as they were."""

    def __init__(self, uuid: str, base: Mapping[str, int]) -> None:
        self._uuid = uuid
        self._turn = ""
        self._model = ""
        self._counting = Counting(base)
        self._usages: list[Usage] = []
        self._texts: list[str] = []
        self._is_whole = False

    def take(self, kind: str, told: dict[str, Any]) -> None:
        """Take one line."""
        if kind == "turn_context" and not self._turn:
            self._model = str(told.get("model", ""))
        elif kind == "item_completed":
            self._item(str(told.get("turn_id", "")), told.get("item") or {})
        elif kind == "token_count":
            self._count((told.get("info") or {}).get("total_token_usage"))
        elif kind == "task_complete" and told.get("turn_id") == self._turn:
            self._is_whole = bool(self._turn)

    def _item(self, turn: str, item: dict[str, Any]) -> None:
        if item.get("type") == "UserMessage" and item.get("client_id") == self._uuid:
            self._turn, self._counting = turn, Counting(self._counting.used)
        elif item.get("type") == "AgentMessage" and turn == self._turn:
            texts = [str(piece.get("text", "")) for piece in item.get("content") or []]
            self._texts += ["".join(texts)] if any(texts) else []

    def _count(self, total: dict[str, Any] | None) -> None:
        if not total or self._is_whole:
            return
        usage = self._counting.take(TokenUsageBreakdown.model_validate(total), turn_id=self._turn, model=self._model)
        if usage is not None and self._turn:
            self._usages.append(usage)

    def recovered(self) -> Recovered | None:
        """Return what was found; None when the turn was not."""
        if not self._turn:
            return None
        return Recovered(_BETWEEN_TEXTS.join(self._texts), tuple(self._usages), is_whole=self._is_whole)
