"""What providers may ask of the copy of their transcripts (execution.providers.claude.mirror.TranscriptStore), in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from execution import actions, queries


class Mirror:
    """Called from any thread; each call gives its connection back."""

    def append(self, *, project: str, session_id: str, path: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add lines to the copy."""
        try:
            actions.mirror_transcript(project=project, session_id=session_id, path=path, entries=entries)
        finally:
            connection.close()

    def load(self, session_id: str, project: str | None = None) -> Mapping[str, Sequence[str]]:
        """Return the copy, path → lines; nothing when there is none."""
        return queries.mirrored_transcript(session_id, project)
