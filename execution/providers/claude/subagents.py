"""What a turn's subagents have used. The CLI tells of their messages how each began, and of some nothing; it writes them down whole, in a
transcript for each subagent, which is read on here while they work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import structlog

from fleet.kernel import distrusted

log = structlog.get_logger(__name__)
DIRECTORY = "subagents"
_NAME = ("agent-", ".jsonl")
_MOST_FILES = 1000  # a bot's own tools could have put them there
_MOST_BYTES = 32 * 1024**2  # at a time; the rest is read the next time
_IS_SAID = b'"assistant"'


class Subagents:
    """The transcripts of one session's subagents, read on from `ends`: how many bytes each had, by its file's name; by default, those
    that it has now. `began` is what it was given or found.

    `session` is the place of the session's own transcript below the CLI's configuration directory, without its suffix.
    """

    def __init__(self, configuration: Path, session: str, *, ends: Mapping[str, int] | None = None) -> None:
        self._configuration, self._directory = configuration, f"{session}/{DIRECTORY}"
        self.began = dict(self._files() if ends is None else ends)
        self._ends = dict(self.began)

    def said(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what was written since the last time: the id of a subagent, and a line with a message of its model."""
        left = _MOST_BYTES
        for name, length in self._files():
            if left > 0 and length > self._ends.get(name, 0):
                lines = self._new_lines(name, at_most=left)
                left -= len(lines)
                agent = name.removeprefix(_NAME[0]).removesuffix(_NAME[1])
                yield from ((agent, entry) for entry in _messages(lines))

    def _files(self) -> list[tuple[str, int]]:
        try:
            with distrusted.opened(self._configuration) as root, distrusted.listed(root, self._directory) as files:
                ours = (file for file in files if file.name.startswith(_NAME[0]) and file.name.endswith(_NAME[1]))
                found = [(file.name, file.stat(follow_symlinks=False).st_size) for file in islice(ours, _MOST_FILES)]
        except OSError:
            return []  # there are none
        if len(found) == _MOST_FILES:
            log.warning("claude.subagents_not_all_counted", session=self._directory, most=_MOST_FILES)
        return found

    def _new_lines(self, name: str, *, at_most: int) -> bytes:
        """Return what was added to a transcript, as far as its lines are complete; a line that is longer than we read is passed over."""
        begin = self._ends.get(name, 0)
        try:
            with (
                distrusted.opened(self._configuration) as root,
                distrusted.open_plain(root, f"{self._directory}/{name}") as file,
            ):
                file.seek(begin, os.SEEK_SET)
                new = file.read(at_most)
        except OSError:
            return b""
        whole = new[: new.rfind(b"\n") + 1] or (new if len(new) == _MOST_BYTES else b"")
        self._ends[name] = begin + len(whole)
        return whole


def entry_of(line: str | bytes) -> dict[str, Any] | None:
    """Return a line of a transcript; None when it is none: cut off by a kill, or of another's making."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _messages(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        entry = entry_of(line) if _IS_SAID in line else None
        if entry is not None and entry.get("type") == "assistant" and isinstance(entry.get("message"), dict):
            yield entry
