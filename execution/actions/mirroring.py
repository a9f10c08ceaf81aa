"""The copy of providers' transcripts, which lets a session go on on another host. A copy only: the provider's own file comes first."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.models import Max

from execution.models import TranscriptLine
from fleet.kernel import clock

FORGET_AT_ONCE = 200  # sessions; a round that deletes more would hold its locks for long


def mirror_transcript(*, project: str, session_id: str, path: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Add lines to the copy, in this order. A line that has a uuid is kept once, however often it comes."""
    TranscriptLine.objects.bulk_create(
        (
            TranscriptLine(
                project=project, session_id=session_id, path=path, uuid=entry.get("uuid", ""), line=json.dumps(entry)
            )
            for entry in entries
        ),
        ignore_conflicts=True,
    )


def forget_transcripts() -> int:
    """Delete the copies of sessions that nobody has spoken in for FLEET_TRANSCRIPT_DAYS; return how many sessions went."""
    limit = clock.db_now(-dt.timedelta(days=settings.FLEET_TRANSCRIPT_DAYS))
    sessions = TranscriptLine.objects.order_by().values("session_id").annotate(last=Max("at")).filter(last__lt=limit)
    old = list(sessions.values_list("session_id", flat=True)[:FORGET_AT_ONCE])
    TranscriptLine.objects.filter(session_id__in=old).delete()
    return len(old)
