"""What a worker writes down of the processes it holds: dispatch and the Runner page read it. Never on the way of a message.

A note that cannot be written is lost, and made good at the next turn of the clock.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from django.db import DatabaseError

from execution import actions
from execution.actions import Held
from fleet.kernel.actors import Actor

if TYPE_CHECKING:
    from execution.engine.standby import Ready

log = structlog.get_logger(__name__)
_BY = Actor.system("standby")


class Notes:
    """The notes of one worker; without `worker_id`, before it has registered, none are written. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.worker_id: uuid.UUID | None = None
        self._lock = threading.Lock()
        self._written: set[uuid.UUID] = set()  # what the database may have a row of

    def stands_by(self, ready: Ready) -> None:
        """Write down that it waits for a turn."""
        if self.worker_id is None or not ready.identity_id:
            return
        with self._lock:
            if ready.is_over:  # a kill order was quicker than the end of the turn
                return
            self._written.add(ready.id)
        try:
            actions.note_held(worker_id=self.worker_id, held=[_held(ready)])
        except DatabaseError as error:
            log.warning("standby.not_noted", session=ready.prompt.session_id, error=str(error).splitlines()[:1])

    def weigh(self, megabytes: Mapping[uuid.UUID, int]) -> bool:
        """Write down what they weigh; return whether there is anything of which people may want the end."""
        with self._lock:
            noted = {identifier: weight for identifier, weight in megabytes.items() if identifier in self._written}
        if self.worker_id is None or not noted:
            return False
        actions.note_weights(worker_id=self.worker_id, megabytes=noted)
        return True

    def settle(self) -> None:
        """Strike what is noted of this worker and proven gone although nobody wrote it down."""
        if self.worker_id is not None:
            with self._lock:
                written = set(self._written)
            actions.settle_held(worker_id=self.worker_id, known=written, by=_BY)

    def why_to_end(self) -> dict[uuid.UUID, str]:
        """Return which of them somebody wants gone, and why."""
        return {} if self.worker_id is None else actions.why_to_end(worker_id=self.worker_id)

    def ended(self, ready: Ready, why: str, *, seen: bool) -> None:
        """Write down that it is proven gone; one whose end was not `seen` is struck by `settle` once there is proof."""
        with self._lock:
            ready.is_over = True
            noted = ready.id in self._written
            self._written.discard(ready.id)
        if not noted or not seen:
            return
        try:
            actions.note_process_ended(held_id=ready.id, why=why, by=_BY)
        except DatabaseError as error:
            log.warning("standby.end_not_noted", pid=ready.process.result(), error=str(error).splitlines()[:1])


def _held(ready: Ready) -> Held:
    now = time.monotonic()
    return Held(
        id=ready.id,
        identity_id=ready.identity_id,
        conversation_id=ready.conversation_id,
        provider=ready.provider,
        model=ready.prompt.model,
        session_id=ready.prompt.session_id,
        turns=ready.turns,
        process=ready.process.result(),
        began_ago=now - ready.began,
        idle_for=now - ready.ready,
    )
