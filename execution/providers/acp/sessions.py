"""Which session of an agent belongs to a session of ours: agents choose their ids themselves."""

from __future__ import annotations

import secrets
from pathlib import Path


class Sessions:
    """One small file per session in the bot's home, apart for each agent."""

    def __init__(self, home: Path, agent: str) -> None:
        self._directory = home / ".fleet-acp" / agent

    def find(self, session_id: str) -> str:
        """Return the agent's own id of this session; empty when it has none here."""
        try:
            return self._path(session_id).read_text()
        except OSError:
            return ""

    def keep(self, session_id: str, theirs: str) -> None:
        """Remember it."""
        self._directory.mkdir(exist_ok=True, parents=True, mode=0o700)
        draft = self._path(session_id).with_suffix(f".{secrets.token_hex(8)}")
        draft.write_text(theirs)
        draft.replace(self._path(session_id))

    def _path(self, session_id: str) -> Path:
        return self._directory / session_id
