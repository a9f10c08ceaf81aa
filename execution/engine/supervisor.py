"""The worker: takes executions while it has slots, keeps their leases, and ends them when it must.

Its clocks run in threads of their own: beat (5 s), fence (0.5 s), watch (0.5 s and on a live hint), drain (1 s), inherit
(0.5 s), sweep (5 s), weigh (2 s).
PostgreSQL alone decides; a Celery message is a hint, and without one the drain finds the same work a second later.
"""

from __future__ import annotations

import datetime as dt
import gc
import os
import threading
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import DatabaseError, connection

from execution import actions, events, queries, sandbox
from execution.engine import inheriting
from execution.engine.adoption import Adoption
from execution.engine.attempt import Attempt
from execution.engine.endings import AWAY_AT_THE_GATE
from execution.engine.halts import Halt
from execution.engine.hints import Listener
from execution.engine.standby import Expected, Standby
from execution.engine.ticker import Ticker
from execution.models import Execution, Worker
from execution.policies import sentence_of_stop
from execution.providers import registry
from execution.shim import processes
from execution.states import OutcomeClass
from fleet.kernel.actors import Actor

log = structlog.get_logger(__name__)
BEAT_SECONDS = 5.0
FENCE_SECONDS = 20.0  # below the lease of 30 s: what we run is dead before anybody may take it over
WATCH_SECONDS = 0.5
DRAIN_SECONDS = 1.0
SWEEP_SECONDS = 5.0
INHERIT_SECONDS = 0.5
WEIGH_SECONDS = 2.0
GATE_SECONDS = 1.0  # what gates that are just being opened get before we leave
END_SECONDS = 5.0  # what processes that stood by get to be gone before we say goodbye
HINTLESS = dt.timedelta(seconds=1.5)  # older than this, an execution's hint has reached nobody

_FENCED = Halt(
    OutcomeClass.ERROR,
    "The worker could not reach the database for 20 seconds, so it stopped what it was running. Please try again.",
    at_once=True,
    hears_out=True,
    give_back=AWAY_AT_THE_GATE,
)
_RESTART = Halt(
    OutcomeClass.STOPPED,
    "The worker was restarted before this was finished. Please send it again.",
    give_back="its worker was stopped",
)


class Supervisor:
    """One incarnation of a worker process, until it is declared lost; then it becomes another."""

    def __init__(self, *, slots: int | None = None, listen: Callable[[str], None] | None = None) -> None:
        self._listen = listen  # to a queue of hints that are meant for this worker alone
        self.slots = slots or settings.FLEET_WORKER_SLOTS
        self.worker: Worker
        self._by: Actor
        # In the order in which they began: two of one execution while the first, given up, still lets go.
        self._attempts: list[Attempt] = []
        self._adopting: set[int] = set()
        self._standby = Standby(self.slots)
        self._lock = threading.Lock()
        self._taken = 0
        self._leaving_until = 0.0  # once what runs was told to go; what begins after that is told as well
        self._idle = threading.Condition(self._lock)
        self._accepting = False
        self._beat_at = 0.0
        self._watch = Ticker("watch", self._look_around, seconds=WATCH_SECONDS)
        self._drain = Ticker("drain", self._find_work, seconds=DRAIN_SECONDS)
        self._clocks = [
            Ticker("beat", self._beat, seconds=BEAT_SECONDS),
            Ticker("fence", self._fence_when_silent, seconds=0.5),
            self._watch,
            self._drain,
            Ticker("sweep", self._sweep, seconds=SWEEP_SECONDS),
            Ticker("inherit", self._inherit, seconds=INHERIT_SECONDS),
            Ticker("weigh", self._weigh, seconds=WEIGH_SECONDS),
        ]
        self._listener = Listener(self._hear)

    # --- Its life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Register this incarnation and begin to take work."""
        for name in settings.FLEET_PROVIDERS:
            registry.get(name).warm_up()
        for sentence in queries.doubts():
            log.warning("provider.in_doubt", sentence=sentence)
        self._register()
        self._accepting = True
        gc.freeze()  # what was loaded stays; looking through it again costs milliseconds in the middle of a turn
        for clock in self._clocks:
            clock.start()
        self._listener.start()
        log.info("worker.started", worker=str(self.worker.pk), slots=self.slots)

    def refuse_work(self) -> None:
        """Take nothing new from now on; safe to call from a signal handler."""
        self._accepting = False

    def stop(self, *, grace: float) -> None:
        """Stop: let what runs finish for `grace` seconds, end the rest, and say goodbye."""
        self.refuse_work()
        self._standby.close()
        if not self._wait_until_idle(grace):
            self._leave_or_end()
            self._wait_until_idle(30.0)
        self._standby.wait_ended(END_SECONDS)
        self._listener.stop()
        for clock in self._clocks:
            clock.stop()
        actions.retire_worker(worker_id=self.worker.pk, event=events.WORKER_STOPPED, by=self._by)
        log.info("worker.stopped", worker=str(self.worker.pk))

    def _leave_or_end(self) -> None:
        """Leave what goes on without us to the next worker; end the rest, and all of it when nobody is going to come."""
        with self._lock:
            self._leaving_until = time.monotonic() + GATE_SECONDS
        for attempt in self._held():
            self._let_leave(attempt, until=self._leaving_until)

    def _let_leave(self, attempt: Attempt, *, until: float) -> None:
        if settings.FLEET_STOPPING_FILE.exists():
            attempt.halt(_RESTART)
        else:
            attempt.leave(otherwise=_RESTART, until=until)

    def _register(self) -> None:
        process = processes.facts(os.getpid())
        self._by = Actor.system(f"worker:{process.host}")
        unconfined, listens = sandbox.reason_for_none(), self._listen is not None
        if unconfined:
            log.warning("worker.unconfined", why=unconfined)
        self.worker = actions.register_worker(
            process=process, slots=self.slots, listens=listens, unconfined=unconfined, by=self._by
        )
        self._standby.notes.worker_id = self.worker.pk
        if self._listen is not None:
            self._listen(str(actions.queue_of(self.worker.pk)))
        self._beat_at = time.monotonic()

    # --- Work --------------------------------------------------------------------------------------------------------

    def offer(self, execution_id: int, epoch: int) -> bool:
        """Try to run this execution in a thread of its own; False when there is no slot. Claiming decides whether it is ours.

        False as well while an attempt believes in an earlier claim of it, which PostgreSQL has forgotten if this is no old hint.
        """
        with self._lock:
            if not self._accepting or self._taken >= self.slots or self._is_silent() or self._has(execution_id, epoch):
                return False
            self._taken += 1
        threading.Thread(target=self._in_thread, args=(execution_id, epoch), name=f"execution:{execution_id}").start()
        return True

    def _has(self, execution_id: int, epoch: int) -> bool:
        return any((held.execution.pk, held.execution.epoch) == (execution_id, epoch) for held in self._attempts)

    def pass_on(self, execution_id: int, epoch: int) -> None:
        """There is no slot for this execution: should it have been left to this worker, let another one have it."""
        if not self._is_silent():
            actions.pass_on(execution_id=execution_id, epoch=epoch, worker_id=self.worker.pk)

    def expect(self, turn: Expected) -> None:
        """A turn will probably be admitted: let its process start meanwhile, in a thread of its own, if a slot is free."""
        with self._lock:
            if not self._accepting or self._taken >= self.slots or self._is_silent():
                return
        name = f"expected:{turn.conversation_id}"
        threading.Thread(target=self._standby.expect, args=(turn,), name=name, daemon=True).start()

    def work(self, execution_id: int, epoch: int) -> Execution | None:
        """Claim this execution and run it to its end in the calling thread; None when there was nothing to claim."""
        execution = actions.claim(execution_id=execution_id, epoch=epoch, worker_id=self.worker.pk, by=self._by)
        if execution is None:
            return None
        self._run(Attempt(execution, by=self._by, standby=self._standby))
        return execution

    def adopt(self, execution_id: int, epoch: int) -> Execution | None:
        """Go on with what another worker left, in the calling thread; None when there was nothing to take over."""
        execution = actions.adopt(execution_id=execution_id, epoch=epoch, worker=self.worker, by=self._by)
        if execution is None:
            return None
        log.info("execution.adopted", execution=execution.pk, epoch=execution.epoch)
        self._run(Adoption(execution, by=self._by, standby=self._standby))
        return execution

    def _run(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts.append(attempt)
            late = self._leaving_until
        if late:
            self._let_leave(attempt, until=late)
        try:
            attempt.run()
        finally:
            with self._lock:
                self._attempts.remove(attempt)

    def _in_thread(
        self, execution_id: int, epoch: int, work: Callable[[int, int], Execution | None] | None = None
    ) -> None:
        worked: Execution | None = None
        try:
            worked = (work or self.work)(execution_id, epoch)
        except DatabaseError as error:
            log.warning("execution.not_claimed", execution=execution_id, error=str(error))
        except Exception:
            log.exception("execution.fault", execution=execution_id)
        finally:
            connection.close()
            with self._lock:
                self._taken -= 1
                self._idle.notify_all()
            if worked is not None:
                self._drain.wake()
                self._start_ahead(worked)

    def _start_ahead(self, last: Execution) -> None:
        """Its bot is busy here: what it wants ready for first turns is started now, when the answer is out."""
        if self._accepting and last.identity.prewarmed:
            self._standby.start_ahead(last.identity, provider=last.provider, model=last.model)

    def _wait_until_idle(self, seconds: float) -> bool:
        with self._lock:
            return self._idle.wait_for(lambda: self._taken == 0, timeout=seconds)

    def _held(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts)

    def _halt_all(self, halt: Halt) -> None:
        for attempt in self._held():
            attempt.halt(halt)

    # --- Clocks ------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        held, asked_at = [attempt.execution for attempt in self._held()], time.monotonic()
        if actions.beat(worker_id=self.worker.pk, held=held):
            self._beat_at = asked_at  # the answer may have been long on its way, and the leases run since the question
            return
        log.error("worker.declared_lost", worker=str(self.worker.pk))
        for attempt in self._held():
            attempt.fence()
        self._register()

    def _is_silent(self) -> bool:
        return time.monotonic() - self._beat_at > FENCE_SECONDS

    def _fence_when_silent(self) -> None:
        if self._is_silent():
            self._halt_all(_FENCED)

    def _hear(self) -> None:
        self._standby.ask()
        self._watch.wake()

    def _look_around(self) -> None:
        """Notice stop requests, kill orders, lost ownership and what was said meanwhile of what runs here, and what stands by in vain."""
        self._standby.look_around()
        latest_last = sorted(self._held(), key=lambda attempt: attempt.execution.epoch)
        held = {attempt.execution.pk: attempt for attempt in latest_last}
        if not held:
            return
        executions = [attempt.execution for attempt in held.values()]
        for identifier, sentence in queries.ordered_to_die(executions).items():
            held[identifier].halt(Halt(OutcomeClass.GOVERNANCE, sentence, at_once=True))
        rows = queries.still_owned(executions)
        for identifier, attempt in held.items():
            row = rows.get(identifier)
            if row is None and not attempt.is_closing:
                attempt.fence()
            elif row is not None and row.stop_requested_at is not None:
                attempt.halt(Halt(OutcomeClass.STOPPED, sentence_of_stop(row.stop_reason)))
            elif row is not None and row.offered:
                attempt.steering.look(offered=row.offered)

    def _find_work(self) -> None:
        """Direct mode: offer what no hint has brought, oldest first, as far as slots are free."""
        with self._lock:
            free = self.slots - self._taken
        if self._accepting and free > 0:
            for execution_id, epoch in queries.unclaimed(older_than=HINTLESS, limit=free, worker_id=self.worker.pk):
                self.offer(execution_id, epoch)

    def _inherit(self) -> None:
        """Adopt what other workers of this machine have left, whatever slots are free: it runs already, and is paid for."""
        for row in inheriting.left_to(self.worker) if self._accepting else []:
            with self._lock:
                if row.pk in self._adopting:
                    continue
                self._adopting.add(row.pk)
                self._taken += 1
            adoption = (row.pk, row.epoch, self._adopt_once)
            threading.Thread(target=self._in_thread, args=adoption, name=f"adoption:{row.pk}").start()

    def _adopt_once(self, execution_id: int, epoch: int) -> Execution | None:
        try:
            return self.adopt(execution_id, epoch)
        finally:
            self._adopting.discard(execution_id)

    def _weigh(self) -> None:
        for attempt in self._held():
            attempt.weigh()

    def _sweep(self) -> None:
        self._standby.weigh()
        self._standby.notes.settle()
        actions.sweep()
        inheriting.end_what_is_over()
        actions.tell_refused_connections(sandbox.taken_refusals())
        sandbox.forget_old()


_current: Supervisor | None = None


def current() -> Supervisor | None:
    """Return the supervisor of this process, if it is a worker."""
    return _current


def begin(*, listen: Callable[[str], None]) -> None:
    """Make this process a worker; `listen` lets it read one more queue of hints."""
    global _current
    _current = Supervisor(listen=listen)
    _current.start()


def end() -> None:
    """Stop being a worker."""
    if _current is not None:
        _current.stop(grace=settings.FLEET_WORKER_GRACE_SECONDS)
