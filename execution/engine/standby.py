"""Processes that stand by for a turn: one is started when a message has come in, while its turn is still being admitted; one that
has answered stays for the next turn of its session; and some are started ahead, for the first turn of a session to come.

Nothing is spent without a prompt, and only the spend gate hands one over. A process ends when nobody asks for it in time, when a
kill order reaches it, or when it is not exactly what a turn needs. Losing one costs time and nothing else.
"""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.db import connection

from execution import actions
from execution.engine import workspace
from execution.engine.notes import Notes
from execution.ports import ProcessFacts, Prompt, Run
from execution.providers import registry
from execution.shim import processes
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError
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
    conversation_id: int | None
    provider: str
    model: str
    session_id: str
    session_turns: int


@dataclass(eq=False, slots=True)
class Ready:
    """A run whose process was started at `began` (monotonic); `process` is done when it waits for its prompt, since `ready`.

    `turns` is how many it has answered. One that was started `ahead` belongs to no conversation until a turn takes it.
    """

    prompt: Prompt
    run: Run
    identity_slug: str
    conversation_id: int | None
    began: float = field(default_factory=time.monotonic)
    ready: float = 0.0
    turns: int = 0
    ahead: bool = False
    process: Future[ProcessFacts | None] = field(default_factory=Future)
    identity_id: int = 0
    provider: str = ""
    id: uuid.UUID = field(default_factory=uuid.uuid4)  # of the process, as long as it lives
    is_over: bool = False  # this worker has ended it, or left it

    @property
    def stays(self) -> bool:
        """Return whether it waits for no turn that is known to come."""
        return self.ahead or self.turns > 0

    def is_due(self) -> bool:
        """Return whether it has waited long enough for somebody to ask."""
        if self.stays:
            return bool(self.ready) and time.monotonic() - self.ready > settings.FLEET_WARM_SECONDS
        return time.monotonic() - self.began > UNASKED_SECONDS


class Standby:
    """The processes of one worker that stand by, one per session. Methods may be called from any thread.

    At most `most` of them were started for a turn that is expected; FLEET_WARM_PROCESSES stay after they have answered, and
    FLEET_PREWARMED_PROCESSES were started ahead: the one that has been idle longest makes room.
    """

    def __init__(self, most: int) -> None:
        self.notes = Notes()
        self._most = most
        self._lock = threading.Lock()
        self._ready: dict[str, Ready] = {}  # by session, the one that came first first
        self._closed = False
        self._asked = False
        self._ends: set[threading.Thread] = set()

    # --- How one comes to stand by ---------------------------------------------------------------------------------------

    def expect(self, turn: Expected) -> None:
        """Start a process for this turn and see it ready; does nothing when none is needed or none may be started."""
        if turn.session_id in self._ready:
            return
        try:
            ready = self._open(turn)
        except FleetError as refusal:
            log.debug("standby.not_started", conversation=turn.conversation_id, why=refusal.sentence)
            return
        finally:
            connection.close()
        if ready is not None:
            bring_to_the_gate(ready)

    def _open(self, turn: Expected, *, ahead: bool = False) -> Ready | None:
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
            started = sum(not ready.stays for ready in self._ready.values())
            if self._closed or turn.session_id in self._ready or (started >= self._most and not ahead):
                return None
            ready = Ready(prompt, provider.open(prompt), identity.slug, turn.conversation_id, ahead=ahead)
            ready.identity_id, ready.provider = identity.pk, turn.provider
            self._ready[turn.session_id] = ready
        return ready

    def start_ahead(self, identity: Identity, *, provider: str, model: str) -> None:
        """This bot is busy here: see that as many processes as it wants wait for first turns, each with a session of its own."""
        wanted = min(identity.prewarmed, settings.FLEET_PREWARMED_PROCESSES)
        with self._lock:
            ahead = [ready for ready in self._ready.values() if ready.ahead]
            its_own = [ready for ready in ahead if ready.identity_id == identity.pk]
            others = [ready for ready in ahead if ready.identity_id != identity.pk]
            for ready in its_own:
                ready.ready = ready.ready and time.monotonic()
        missing = wanted - len(its_own)
        for idle_longest in sorted(others, key=lambda ready: ready.ready)[
            : max(0, len(ahead) + missing - _most_ahead())
        ]:
            self._drop(idle_longest, "room for another bot")
        for _ in range(missing):
            self._start_one_ahead(Expected(identity.pk, None, provider, model, str(uuid.uuid4()), 0))

    def _start_one_ahead(self, turn: Expected) -> None:
        try:
            ready = self._open(turn, ahead=True)
        except FleetError as refusal:
            log.debug("standby.not_started", identity=turn.identity_id, why=refusal.sentence)
            return
        if ready is None:
            return
        bring_to_the_gate(ready)
        failure = ready.process.exception()
        if failure is None:
            self.notes.stands_by(ready)
        else:
            log.warning("standby.not_started", identity=turn.identity_id, why=str(failure))
            self._drop(ready, "it could not be started")

    def keep(self, ready: Ready) -> bool:
        """Let a process that has answered stay for the next turn of its session; False when it may not, and is still the caller's."""
        with self._lock:
            if self._closed or settings.FLEET_WARM_PROCESSES <= 0 or ready.prompt.session_id in self._ready:
                return False
            self._ready[ready.prompt.session_id] = ready
            warm = [other for other in self._ready.values() if other.turns]
        for idle_longest in warm[: -settings.FLEET_WARM_PROCESSES]:
            self._drop(idle_longest, "room for another one")
        return True

    # --- How one is taken ------------------------------------------------------------------------------------------------

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
                found.conversation_id, found.ahead = conversation_id, False
        for ready in stale.values():
            self._drop(ready, "it did not fit the next turn")
        return found if fits else None

    # --- How one ends ----------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Somebody may want one to end: look at the next turn of the clock."""
        self._asked = True

    def look_around(self) -> None:
        """End what nobody asked for, and what a kill order reaches or a person wants gone."""
        with self._lock:
            standing = list(self._ready.values())
        stopped = bool(standing) and bool(governance_queries.active_orders())  # one question while nothing is stopped
        for ready in standing:
            order = _order_against(ready) if stopped else None
            if order or ready.is_due() or not ready.run.is_there():
                self._drop(ready, "a kill order" if order else "nobody needed it for long", order)
        if self._asked:
            self._asked = False
            self._obey()

    def weigh(self) -> None:
        """End what has grown larger than a process that only waits may be, or no longer fits its bot; write down the rest."""
        with self._lock:
            staying = [ready for ready in self._ready.values() if ready.stays and ready.process.done()]
        weights = {
            ready: processes.megabytes(ready.process.result()) for ready in staying if not ready.process.exception()
        }
        for ready, megabytes in weights.items():
            if megabytes > settings.FLEET_WARM_MEGABYTES:
                self._drop(ready, f"it had grown to {megabytes:.0f} MB")
        if self.notes.weigh({ready.id: round(megabytes) for ready, megabytes in weights.items()}):
            self._obey()

    def _obey(self) -> None:
        """End what people want gone, here or by what they made of the bot."""
        for identifier, why in self.notes.why_to_end().items():
            with self._lock:
                found = next((ready for ready in self._ready.values() if ready.id == identifier), None)
            if found is not None:
                self._drop(found, why)

    def clear(self, why: str) -> None:
        """End everything that stands by."""
        with self._lock:
            standing = list(self._ready.values())
        for ready in standing:
            self._drop(ready, why)

    def close(self) -> None:
        """End everything that stands by, and start nothing any more."""
        self._closed = True
        self.clear("its worker was stopped")

    def wait_ended(self, seconds: float) -> bool:
        """Wait until everything that is being ended is gone and its end is noted; False when that took longer."""
        until = time.monotonic() + seconds
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            end.join(max(0.0, until - time.monotonic()))
        return not any(end.is_alive() for end in ends)

    def _drop(self, ready: Ready, why: str, order: KillOrder | None = None) -> None:
        """End it in the background: nobody waits for it, but a kill order that ended it gets its proof."""
        with self._lock:
            if self._ready.get(ready.prompt.session_id) is not ready:
                return
            del self._ready[ready.prompt.session_id]
            end = threading.Thread(target=self._end, args=(ready, why, order), name="standby:end", daemon=True)
            self._ends = {one for one in self._ends if one.is_alive()} | {end}
            end.start()

    def _end(self, ready: Ready, why: str, order: KillOrder | None) -> None:
        gone = ready.run.kill()
        ready.run.close()
        try:
            self.notes.ended(ready, why, seen=gone)
            if gone:
                _tell_order(ready, order)
        finally:
            connection.close()


def _most_ahead() -> int:
    return int(settings.FLEET_PREWARMED_PROCESSES)


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


def _tell_order(ready: Ready, order: KillOrder | None) -> None:
    process = None if ready.process.exception() else ready.process.result()
    if order is None or process is None:
        return
    actions.note_idle_gone(order=order, identity_slug=ready.identity_slug, process=process, by=_BY)
