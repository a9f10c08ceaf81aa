"""What changed anywhere, by topic, for the console's pages: they fetch what they show, and only need to know when."""

from __future__ import annotations

from typing import Any

from django.db import connection

from fleet.kernel.models import JournalEntry

Frame = dict[str, Any]
MOST_ENTRIES = 500

# Every change leaves a journal entry, so the journal tells which pages are out of date. The first fitting beginning counts.
TOPICS = {
    "governance.kill.": ("kill", "fleet"),
    "conversations.turn.": ("conversations", "fleet"),
    "conversations.": ("conversations",),
    "execution.": ("fleet",),
    "identities.": ("fleet",),
    "budgets.": ("fleet",),
    "gateways.": ("fleet",),
}


class ConsoleFeed:
    """One page's place in the journal.

    Entries become visible in another order than their numbers, so the place is the oldest transaction that was still open at the last
    look, and the entries already seen since.
    """

    def __init__(self) -> None:
        self._since: int | None = None
        self._seen: set[int] = set()

    def look(self) -> list[Frame]:
        """Return one frame for each topic that changed since the last look; the first look only finds the place."""
        first, oldest_open = self._since is None, _oldest_open_transaction()
        since = oldest_open if self._since is None else self._since
        rows = JournalEntry.objects.filter(transaction__gte=since).order_by("-pk")
        entries = list(rows.values_list("pk", "event", "subject_id")[:MOST_ENTRIES])
        fresh = [entry for entry in entries if entry[0] not in self._seen]
        self._since, self._seen = oldest_open, {entry[0] for entry in entries}
        return [] if first else _frames(fresh)


def _frames(entries: list[tuple[int, str, str]]) -> list[Frame]:
    """Return the newest change of each topic; `entries` are newest first."""
    newest: dict[str, Frame] = {}
    for number, event, subject in entries:
        for topic in _topics(event):
            newest.setdefault(topic, {"topic": topic, "id": subject, "version": number, "kind": event})
    return list(newest.values())


def _topics(event: str) -> tuple[str, ...]:
    return next((topics for beginning, topics in TOPICS.items() if event.startswith(beginning)), ())


def _oldest_open_transaction() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT txid_snapshot_xmin(txid_current_snapshot())")
        return int(cursor.fetchone()[0])
