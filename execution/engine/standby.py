"""Processes that stand by: a message has come in, so its turn is expected, and its CLI starts while the turn is still being admitted.

Nothing is spent without a prompt, and only the spend gate hands one over. A process that is not asked for soon, or that a kill
order reaches, ends; so does one that no longer knows all of its session. Losing one costs time and nothing else.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
from django.db import connection

from execution.engine import workspace
from execution.ports import ProcessFacts, Prompt, Run
from execution.providers import registry
from fleet.kernel.exceptions import FleetError
from governance import policies as governance_policies
from identities import policies as identity_policies
from identities.models import Identity

log = structlog.get_logger(__name__)
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
    """A run whose process has been started at `began` (monotonic); `process` is done when it waits for its prompt, since `ready`."""

    prompt: Prompt
    run: Run
    identity_slug: str
    conversation_id: int | None
    began: float = field(default_factory=time.monotonic)
    ready: float = 0.0
    process: Future[ProcessFacts | None] = field(default_factory=Future)


class Standby:
    """The processes of one worker that stand by, at most `most` of them and one per session. Methods may be called from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._ready: dict[str, Ready] = {}
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
            if self._closed or turn.session_id in self._ready or len(self._ready) >= self._most:
                return None
            ready = Ready(prompt, provider.open(prompt), identity.slug, turn.conversation_id)
            self._ready[turn.session_id] = ready
        return ready

    def take(self, prompt: Prompt) -> Ready | None:
        """Return the process that stands by for exactly this prompt; the caller owns it from now on."""
        with self._lock:
            ready = self._ready.pop(prompt.session_id, None)
        if ready is None or ready.prompt == prompt:
            return ready
        _end(ready)
        return None

    def look_around(self) -> None:
        """End what nobody asked for, and what a kill order reaches."""
        with self._lock:
            standing = list(self._ready.values())
        for ready in standing:
            if time.monotonic() - ready.began > UNASKED_SECONDS or _is_killed(ready):
                self._drop(ready)

    def close(self) -> None:
        """End everything that stands by, and start nothing any more."""
        self._closed = True
        for ready in list(self._ready.values()):
            self._drop(ready)

    def _drop(self, ready: Ready) -> None:
        with self._lock:
            if self._ready.get(ready.prompt.session_id) is not ready:
                return
            del self._ready[ready.prompt.session_id]
        _end(ready)


def bring_to_the_gate(ready: Ready) -> None:
    """Start the process and wait until it is ready. What goes wrong is raised to whoever asks for `ready.process`."""
    try:
        process, ready.ready = ready.run.prepare(), time.monotonic()
        ready.process.set_result(process)
    except Exception as error:
        ready.process.set_exception(error)


def _is_killed(ready: Ready) -> bool:
    try:
        governance_policies.check_not_killed(identity_slug=ready.identity_slug, conversation_id=ready.conversation_id)
    except FleetError:
        return True
    return False


def _end(ready: Ready) -> None:
    """Kill it in the background: nobody waits for a process that was never asked anything."""
    threading.Thread(target=_kill, args=(ready.run,), name="standby:end", daemon=True).start()


def _kill(run: Run) -> None:
    run.kill()
    run.close()
