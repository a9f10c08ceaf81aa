"""Processes that stand by for a turn: one is started when a message has come in, while its turn is still being admitted; and one
that has answered stays for the next turn of its session.

Nothing is spent without a prompt, and only the spend gate hands one over. A process ends when nobody asks for it in time, when a
kill order reaches it, or when it is not exactly what a turn needs. Losing one costs time and nothing else.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.db import connection

from execution.engine import workspace
from execution.ports import ProcessFacts, Prompt, Run
from execution.providers import registry
from execution.shim import processes
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError
from governance import actions as governance_actions
from governance import policies as governance_policies
from governance import queries as governance_queries
from governance.models import KillOrder
from identities import policies as identity_policies
from identities.models import Identity

log = structlog.get_logger(__name__)
_BY = Actor.system("standby")
UNASKED_SECONDS = 10.0  # admission takes milliseconds; whatever still waits then was refused or went to another worker


@dataclass(frozen=True, slots=True)
class Expected:
    """The turn that is expected: of which bot, where, and in which session."""

    identity_id: int
    conversation_id: int
    provider: str
    model: str
    session_id: str
    session_turns: int


@dataclass(eq=False, slots=True)
class Ready:
    """A run whose process was started at `began` (monotonic); `process` is done when it waits for its prompt, since `ready`.

    `warm`: it has answered before.
    """

    prompt: Prompt
    run: Run
    identity_slug: str
    conversation_id: int | None
    began: float = field(default_factory=time.monotonic)
    ready: float = 0.0
    warm: bool = False
    process: Future[ProcessFacts | None] = field(default_factory=Future)

    def is_due(self) -> bool:
        """Return whether it has waited long enough for somebody to ask."""
        if self.warm:
            return time.monotonic() - self.ready > settings.FLEET_WARM_SECONDS
        return time.monotonic() - self.began > UNASKED_SECONDS


class Standby:
    """The processes of one worker that stand by, one per session. Methods may be called from any thread.

    At most `most` of them were started for a turn that is expected, and FLEET_WARM_PROCESSES stay after they have answered: the one
    that has been idle longest makes room.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._ready: dict[str, Ready] = {}  # by session, the one that came first first
        self._closed = False

    def expect(self, turn: Expected) -> None:
        """Start a process for this turn and see it ready; does nothing when none is needed or none may be started."""
        try:
            ready = self._open(turn)
        except FleetError as refusal:
            log.debug("standby.not_started", conversation=turn.conversation_id, why=refusal.sentence)
            return
        finally:
            connection.close()
        if ready is not None:
            bring_to_the_gate(ready)

    def _open(self, turn: Expected) -> Ready | None:
        provider = registry.get(turn.provider)
        if not provider.capabilities.spawns_process:
            return None
        identity = Identity.objects.get(pk=turn.identity_id)
        identity_policies.check_takes_messages(identity)
        governance_policies.check_not_killed(identity_slug=identity.slug, conversation_id=turn.conversation_id)
        texts = workspace.last_known(identity)  # should they have changed, the turn starts a process of its own
        prompt = workspace.prompt_of(
            identity,
            texts,
            model=turn.model,
            session_id=turn.session_id,
            session_turns=turn.session_turns,
        )
        with self._lock:
            started = sum(not ready.warm for ready in self._ready.values())
            if self._closed or turn.session_id in self._ready or started >= self._most:
                return None
            ready = Ready(prompt, provider.open(prompt), identity.slug, turn.conversation_id)
            self._ready[turn.session_id] = ready
        return ready

    def keep(self, ready: Ready) -> bool:
        """Let a process that has answered stay for the next turn of its session; False when it may not, and is still the caller's."""
        with self._lock:
            if self._closed or settings.FLEET_WARM_PROCESSES <= 0 or ready.prompt.session_id in self._ready:
                return False
            self._ready[ready.prompt.session_id] = ready
            warm = [other for other in self._ready.values() if other.warm]
        for idle_longest in warm[: -settings.FLEET_WARM_PROCESSES]:
            self._drop(idle_longest)
        return True

    def take(self, prompt: Prompt, *, conversation_id: int | None) -> Ready | None:
        """Return the process that stands by for exactly this prompt, which the caller owns from now on.

        What stood by for another session of the conversation, or for what the bot was before, is ended.
        """
        with self._lock:
            found = self._ready.get(prompt.session_id)
            fits = found is not None and found.prompt == prompt and found.run.is_there()
            here = [ready for ready in self._ready.values() if ready.conversation_id == conversation_id is not None]
            stale = {
                id(ready): ready for ready in (found, *here) if ready is not None and not (fits and ready is found)
            }
            if found is not None and fits:
                del self._ready[prompt.session_id]
        for ready in stale.values():
            self._drop(ready)
        return found if fits else None

    def look_around(self) -> None:
        """End what nobody asked for, and what a kill order reaches."""
        with self._lock:
            standing = list(self._ready.values())
        stopped = bool(standing) and bool(governance_queries.active_orders())  # one question while nothing is stopped
        for ready in standing:
            order = _order_against(ready) if stopped else None
            if order or ready.is_due() or not ready.run.is_there():
                self._drop(ready, order)

    def weigh(self) -> None:
        """End what has answered and has grown larger than a process that only waits may be."""
        with self._lock:
            warm = [ready for ready in self._ready.values() if ready.warm]
        for ready in warm:
            if processes.megabytes(ready.process.result()) > settings.FLEET_WARM_MEGABYTES:
                self._drop(ready)

    def close(self) -> None:
        """End everything that stands by, and start nothing any more."""
        with self._lock:
            self._closed = True
            standing = list(self._ready.values())
        for ready in standing:
            self._drop(ready)

    def _drop(self, ready: Ready, order: KillOrder | None = None) -> None:
        """End it in the background: nobody waits for it, but a kill order that ended it gets its proof."""
        with self._lock:
            if self._ready.get(ready.prompt.session_id) is not ready:
                return
            del self._ready[ready.prompt.session_id]
        threading.Thread(target=_end, args=(ready, order), name="standby:end", daemon=True).start()


def bring_to_the_gate(ready: Ready) -> None:
    """Start the process and wait until it is ready. What goes wrong is raised to whoever asks for `ready.process`."""
    try:
        process, ready.ready = ready.run.prepare(), time.monotonic()
        ready.process.set_result(process)
    except Exception as error:
        ready.process.set_exception(error)


def _order_against(ready: Ready) -> KillOrder | None:
    _, order = governance_queries.order_reaching(
        identity_slug=ready.identity_slug, conversation_id=ready.conversation_id, execution_id=None
    )
    return order


def _end(ready: Ready, order: KillOrder | None) -> None:
    gone = ready.run.kill()
    ready.run.close()
    process = None if ready.process.exception() else ready.process.result()
    if order is None or process is None or not gone:
        return
    try:
        governance_actions.record_quiet(
            order=order,
            kind="process",
            subject=f"idle:{process.pid}",
            by=_BY,
            killed=True,
            sentence=f"{ready.identity_slug} had nothing to do: process {process.pid} on {process.host} and its descendants are gone.",
        )
    finally:
        connection.close()
