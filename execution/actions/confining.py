"""What the walls around bots have held back."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from execution import events
from execution.sandbox.refusals import Refused
from fleet.kernel import journal
from fleet.kernel.actors import Actor

_EGRESS = Actor.system("egress")


def tell_refused_connections(refused: Sequence[Refused]) -> None:
    """Journal which destinations bots tried to reach and did not; no statement when there are none."""
    if not refused:
        return
    with transaction.atomic():
        for place in refused:
            details = {"host": place.host, "port": place.port, "why": place.why, "times": place.times}
            journal.record(events.CONNECTION_REFUSED, by=_EGRESS, subject=("identity", place.bot), **details)
