"""Which session of an agent belongs to a session of ours: agents choose their ids themselves."""

from __future__ import annotations

from pathlib import Path

from execution.sandbox import open_plain, own_directories
from fleet.kernel import distrusted

PLACE = ".acp-sessions"
LONGEST = 512  # characters of an id


class Sessions:
    """One small file per session, apart for each bot and agent: beside the bot's home, so that it is on every host where the home is, and
    outside of it, where nothing inside the bot's walls sees or writes it.
    """

    def __init__(self, home: Path, agent: str) -> None:
        self._place, self._below = home.parent / PLACE, f"{home.name}/{agent}"

    def find(self, session_id: str) -> str:
        """Return the agent's own id of this session; empty when it has none here."""
        try:
            with open_plain(self._place / self._below / session_id) as file:
                found = file.read(LONGEST + 1)
        except OSError:
            return ""
        return found if _is_plain(found) else ""

    def keep(self, session_id: str, theirs: str) -> None:
        """Remember it, unless it is none that could be found again: then the next turn begins afresh and says so."""
        if not _is_plain(theirs):
            return
        own_directories(self._place)
        with distrusted.opened(self._place) as place:
            distrusted.replace(place, f"{self._below}/{session_id}", theirs.encode(), private=True)


def _is_plain(theirs: str) -> bool:
    return 0 < len(theirs) <= LONGEST and theirs.isprintable()
