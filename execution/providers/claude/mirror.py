"""The copy of the CLI's transcripts: written by the SDK while the CLI works, put back where a host lacks the session or is behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import structlog
from claude_agent_sdk import SessionStore, project_key_for_directory
from claude_agent_sdk.types import SessionKey, SessionListSubkeysKey, SessionStoreEntry
from django.conf import settings
from django.utils.module_loading import import_string

from execution.ports import Prompt
from execution.providers.claude import launch
from execution.providers.claude.transcripts import TRANSCRIPTS
from execution.sandbox import own_directories
from execution.sandbox.plain import LARGEST
from fleet.kernel import distrusted

log = structlog.get_logger(__name__)
PIECE = 1024**2


class TranscriptStore(Protocol):
    """A copy of transcripts outside of the machine, from which any host can resume a session. Setting FLEET_TRANSCRIPT_STORE."""

    def append(self, *, project: str, session_id: str, path: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, in this order; one with a uuid that is known already is left out. Any thread."""
        ...

    def load(self, session_id: str, project: str | None = None) -> Mapping[str, Sequence[str]]:
        """Return path → lines as JSON, the empty path being the session itself; nothing when there is no copy."""
        ...


@cache
def store() -> TranscriptStore | None:
    """Return where copies are kept; None when this installation keeps none."""
    return import_string(settings.FLEET_TRANSCRIPT_STORE)() if settings.FLEET_TRANSCRIPT_STORE else None


def store_of_sdk(session_id: str) -> SessionStore | None:
    """Return the store of this session in the SDK's own words; it asks at runtime which of the optional methods there are."""
    copies = store()
    return cast("SessionStore", StoreOfSdk(copies, session_id)) if copies is not None else None


def put_back(prompt: Prompt) -> None:
    """Write the transcripts of the session, and of the one it branches off, from the copy where this host has none of them, or fewer
    lines: it was spoken in elsewhere.
    """
    copies = store()
    if copies is None or not prompt.resume:
        return
    directory = launch.configuration_directory(prompt.home).relative_to(prompt.home)
    sessions = [session for session in (prompt.session_id, prompt.forks) if session]
    found = [(session, path, lines) for session in sessions for path, lines in copies.load(session).items()]
    own_directories(prompt.home)
    with distrusted.opened(prompt.home) as home:
        for session, path, lines in found:
            file = (directory / f"{place_of(session, prompt.workspace)}/{path}").as_posix() + ".jsonl"
            if len(lines) > _lines(home, file):
                distrusted.replace(home, file, "".join(f"{line}\n" for line in lines).encode(), private=True)


def place_of(session_id: str, workspace: Path) -> str:
    """Return where a session's transcript lies below the CLI's configuration directory, without its suffix."""
    return f"{TRANSCRIPTS}/{project_key_for_directory(workspace)}/{session_id}"


def _lines(home: int, file: str) -> int:
    """Return how many lines there are; none in what is no file of its own or too large, as the bot might have put there."""
    try:
        with distrusted.open_plain(home, file, largest=LARGEST) as opened:
            pieces = islice(iter(partial(opened.read, PIECE), b""), LARGEST // PIECE)  # it may grow meanwhile
            return sum(piece.count(b"\n") for piece in pieces)
    except OSError:
        return 0


class StoreOfSdk:
    """What the SDK writes to: as much of its SessionStore as is needed.

    Its calls come on the loop; the store's own work is done in a thread. What comes from the CLI, a tool inside its walls could have
    written: only lines of `session_id` are taken, lest a bot put words into another one's session.
    """

    def __init__(self, copies: TranscriptStore, session_id: str | None = None) -> None:
        self._copies, self._session_id = copies, session_id

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Copy lines that the CLI has written to its own file."""
        if self._session_id not in (None, key["session_id"]):
            log.warning("transcript.of_another_session", session=self._session_id)
            return
        await asyncio.to_thread(
            self._copies.append,
            project=key["project_key"], session_id=key["session_id"], path=key.get("subpath", ""), entries=entries,
        )  # fmt: skip

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Return the copied lines of one transcript; None when there are none."""
        found = await asyncio.to_thread(self._copies.load, key["session_id"], key["project_key"])
        lines = found.get(key.get("subpath", ""))
        return [json.loads(line) for line in lines] if lines else None

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the paths of a session's subagents."""
        found = await asyncio.to_thread(self._copies.load, key["session_id"], key["project_key"])
        return [path for path in found if path]
