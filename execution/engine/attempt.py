"""One attempt at an execution: claim → process at the spend gate → release → follow → close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError

from execution import actions, ports, queries
from execution.actions import Ending
from execution.actions.recording import Line
from execution.cleaning import clean, storable
from execution.engine import endings, workspace
from execution.engine.gatekeeper import Gatekeeper
from execution.engine.halts import GRACE_SECONDS, Halt, Limits
from execution.engine.memory import Memory
from execution.engine.metering import Meter
from execution.engine.standby import Ready, Standby, bring_to_the_gate
from execution.engine.steering import Steering
from execution.engine.transcript import COALESCE_SECONDS, Transcript
from execution.models import Execution
from execution.ports import Claim, Finished, NotPrepared, ProcessFacts, Run, Usage
from execution.providers import registry
from execution.states import UNKNOWN, EventKind, ExecutionState, OutcomeClass
from fleet.kernel import clock, database
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Fenced

log = structlog.get_logger(__name__)
SURVIVE_SECONDS = 20.0  # as long as a worker without a database may believe that it still owns anything
# Nothing runs by then, and the row itself says whose it is: what was paid is worth the wait.
PAID_SURVIVE_SECONDS = 300.0


class Attempt:
    """Runs one claimed execution to its end, in the calling thread. `halt` may be called from any other."""

    def __init__(self, execution: Execution, *, by: Actor, standby: Standby) -> None:
        self.execution = execution
        self._by = by
        self._standby = standby
        self._run: Run | None = None
        self._gate: Ready
        self._standing: Ready | None = None  # what stood by for it, until it stands by again
        self._limits: Limits
        self._memory = Memory(None, megabytes=0)
        self._provider = registry.get(execution.provider)
        self._halt: Halt | None = None
        self._halt_lock = threading.RLock()
        self._opening = threading.Lock()  # the spend gate
        self._halted_at = 0.0
        self._fenced = False
        self._released = False
        self._leaving = False
        self._left_alone: ProcessFacts | None = None  # what another worker left, and we could not take over
        self._taken = 0  # events of the provider
        self.is_closing = False
        self._ended_at = 0.0
        self._sequence = 1
        self._meter = Meter(execution, self._provider)
        self._transcript = Transcript(write=self._write, meter=self._post)
        self.steering = Steering(execution, by=by, note=self._transcript.aside)

    # --- What others may ask of it -----------------------------------------------------------------------------------

    def halt(self, halt: Halt, *, fenced: bool = False) -> None:
        """End this attempt: politely first, or at once. Returns immediately; the first reason stands unless a harder one comes."""
        with self._halt_lock:
            self._fenced = self._fenced or fenced
            if not halt.outranks(self._halt):
                return
            self._halt, self._halted_at = halt, time.monotonic()
            run = self._run
        if run is not None:
            stop = run.kill if halt.at_once or not self._released else run.interrupt
            threading.Thread(target=stop, name=f"halt:{self.execution.pk}", daemon=True).start()

    def leave(self, *, otherwise: Halt, until: float) -> None:
        """Let the turn go on without this worker, for another one to adopt, or end it.

        Waits `until` then (monotonic) for a gate that is just being opened. One that takes longer finds no database: it stays shut.
        """
        opened = self._opening.acquire(timeout=max(0.0, until - time.monotonic()))
        with self._halt_lock:
            self._leaving = self._can_be_left()
            if not self._leaving:
                self.halt(otherwise)
        if opened:
            self._opening.release()

    def _can_be_left(self) -> bool:
        able = self._released and self._run is not None and self._provider.capabilities.adopts
        return able and self._halt is None and not self.is_closing

    def fence(self) -> None:
        """The row is not ours any more. What another worker goes on with is left to it; anything else is ended at once."""
        self._fenced = True
        if self._goes_on_elsewhere():
            self._leaving = True
        else:
            self.halt(endings.TAKEN_OVER, fenced=True)

    def _goes_on_elsewhere(self) -> bool:
        """Return whether another worker has adopted it. The shim listens to that one only; killing would end what is not ours."""
        able = self._released and self._provider.capabilities.adopts
        return able and queries.goes_on_elsewhere(self.execution)

    def weigh(self) -> None:
        """End this attempt when it uses more memory than its bot may; asked on the worker's clock."""
        exceeded = self._memory.exceeded()
        if exceeded and not self.is_closing:
            self.halt(exceeded)

    # --- Its life ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry the execution to its end; whatever happens, its processes are gone and the row is closed or given back."""
        try:
            self._close(self._carry())
        except Fenced:
            self._abandon()
        except endings.Left:
            pass
        except (DatabaseError, InterfaceError) as error:
            log.error("execution.left_to_the_sweep", execution=self.execution.pk, error=str(error))
        finally:
            gone = self._let_go()
            self._memory.let_go()
            if self._standing is not None:
                left = self._run is None
                self._standby.notes.ended(self._standing, "its last turn ended it", seen=gone and not left)

    def _carry(self) -> Finished:
        """Return how the provider ended; every failure is turned into an end with a sentence."""
        try:
            return self._follow(self.steering.begin(self._begin()))
        except (Fenced, endings.Left):
            raise
        except Exception as failure:
            return endings.following(failure, execution_id=self.execution.pk)
        finally:
            self.steering.end()

    def _begin(self) -> Run:
        """Bring the process to the spend gate, commit the release, and only then hand over the prompt."""
        if self.execution.attempt > 1:
            self._sequence = actions.next_sequence(self.execution)
        prompt = workspace.prompt_for(self.execution)
        self._gate = gate = self._at_the_gate(prompt)
        run, process = gate.run, gate.process.result()
        with self._opening:
            self._check_at_the_gate(run)
            texts = self._survive(partial(self._release, gate, process), unless=lambda: self._halt is not None)
            self._bound(prompt, process)
            with self._halt_lock:
                self._check_not_halted()  # it is dead by now: should its release be written, nothing was spent all the same
                self._released = True
        if self.execution.fork_of and not prompt.resume:
            self._transcript.aside(EventKind.NOTICE, text=workspace.CANNOT_BRANCH)
        refused = partial(self._transcript.aside, EventKind.TOOL_DENIED)
        gatekeeper = Gatekeeper(self.execution, workspace=prompt.workspace, refused=refused)
        claim = Claim(self.execution.pk, self.execution.epoch)
        run.release(texts, judge=gatekeeper.judge, claim=claim)
        return run

    def _bound(self, prompt: ports.Prompt, process: ProcessFacts | None) -> None:
        """Set what this turn may use; its time runs from here."""
        self._limits = Limits.of(prompt)
        self._memory = Memory(process, megabytes=prompt.max_megabytes)
        self._memory.enclose()

    def _at_the_gate(self, prompt: ports.Prompt) -> Ready:
        """Return a process that waits for its prompt: the one that stands by for it, or a new one."""
        standing = self._standby.take(prompt, conversation_id=self.execution.conversation_id)
        if standing is not None:
            self._standing = standing
            self._own(standing.run)
            if standing.process.exception() is None:
                return standing
            self._let_go()
        bot = self.execution.identity
        fresh = Ready(prompt, self._provider.open(prompt), bot.slug, self.execution.conversation_id)
        fresh.identity_id, fresh.provider = bot.pk, self.execution.provider
        self._own(fresh.run)
        bring_to_the_gate(fresh)
        return fresh

    def _own(self, run: Run) -> None:
        with self._halt_lock:
            self._run = run
        self._check_not_halted()

    def _check_not_halted(self) -> None:
        """Raise NotPrepared when somebody ended this before it began."""
        with self._halt_lock:
            halt = self._halt
        if halt:
            raise NotPrepared(Finished(halt.outcome, sentence=halt.sentence))

    def _check_at_the_gate(self, run: Run) -> None:
        """Raise NotPrepared when somebody ended this before it began, or its process ended by itself: so far nothing is spent."""
        there = run.is_there()
        self._check_not_halted()
        if not there:
            raise NotPrepared(endings.GONE_AT_THE_GATE)

    def _release(self, gate: Ready, process: ProcessFacts | None) -> tuple[ports.UserText, ...]:
        since = {"spawned_ago": endings.ago(gate.began), "ready_ago": endings.ago(gate.ready)}
        return actions.release(execution=self.execution, process=process, by=self._by, **since)

    def _follow(self, run: Run) -> Finished:
        """Take the provider's events until it finishes; what a killed one had still to say is not waited for."""
        for event in run.events(timeout=COALESCE_SECONDS):
            self._transcript.overhear(run.unreported, only_due=True)
            if event is None:
                self._transcript.flush(only_due=True)
            else:
                self._take(event)
            if isinstance(event, Finished):
                self._ended_at = time.monotonic()
                self._transcript.overhear(run.unreported)
                return event
            if self._leaving:
                self._leave(run)
                raise endings.Left
            self._watch_limits()
            if self._halt and self._halt.at_once and (event is None or not self._halt.hears_out):
                break
        return Finished(OutcomeClass.ERROR, sentence=endings.SILENT_END)

    def _leave(self, run: Run) -> None:
        with self._halt_lock:
            self._run = None
        run.leave()
        log.info("execution.left", execution=self.execution.pk, epoch=self.execution.epoch)

    def _take(self, event: ports.ProviderEvent) -> None:
        self._taken += 1
        if self._halt and isinstance(event, ports.TextDelta):
            return  # it was told to stop: its answer ends here
        self._limits.hear(event, ending=self._halt is not None)
        self._note(event)

    def _note(self, event: ports.ProviderEvent) -> None:
        self._transcript.take(event)

    def _watch_limits(self) -> None:
        if self._halt is None:
            reached = self._limits.reached()
            if reached:
                self.halt(reached)
        elif not self._halt.at_once and time.monotonic() - self._halted_at > GRACE_SECONDS:
            self.halt(replace(self._halt, at_once=True))

    # --- What it writes ----------------------------------------------------------------------------------------------

    def _survive(self, write: Callable[[], Any], unless: Callable[[], bool] = lambda: False) -> Any:
        if self._fenced:
            raise Fenced(f"Execution {self.execution.pk} was given up.")
        seconds = PAID_SURVIVE_SECONDS if self._released else SURVIVE_SECONDS
        return database.survive(write, seconds=seconds, unless=unless)

    def _write(self, lines: list[Line]) -> None:
        new: dict[str, Any] = {"first_sequence": self._sequence, "lines": lines, "through": self._taken}
        self._sequence = self._survive(partial(actions.record_events, execution=self.execution, **new))

    def _post(self, usages: list[Usage]) -> None:
        metered = self._survive(partial(self._meter.post, usages))
        if metered is None:
            return
        self._transcript.aside(EventKind.USAGE, **self._transcript.tokens(), cost_nano_usd=metered.total_nano_usd)
        if metered.exhausted:
            self.halt(endings.BUDGET_USED_UP)

    # --- Its end -----------------------------------------------------------------------------------------------------

    def _close(self, finished: Finished) -> None:
        """Write the end, unless it begins anew. After a good answer its process stays, or leaves meanwhile; else it is gone first."""
        if not self._released and self._give_back(finished):
            return
        if finished.outcome == OutcomeClass.OK:
            stays = self._let_stay(finished)
            self._finish(finished, gone=False)
            if stays is not None:
                kept, over = stays
                over.settle()
                self._standby.notes.stands_by(kept)
            elif self._let_go():
                actions.note_gone(execution=self.execution, by=self._by)
        else:
            self.weigh()  # what the kernel killed for its memory ends as if it had broken
            self._finish(finished, gone=self._let_go())

    def _give_back(self, finished: Finished) -> bool:
        """Queue it again, for free, when its worker stops, loses the database, or its process to a stranger; False when it has to end."""
        gone = self._let_go()
        struck = self._run.struck() if gone and self._run else ""
        why = endings.reason_to_give_back(self._halt, finished, struck=struck)
        # Not if its release was written, and only the answer was lost: then it ends, and nothing of it was spent.
        return bool(why) and self._survive(partial(actions.requeue, execution=self.execution, by=self._by, why=why))

    def _finish(self, finished: Finished, *, gone: bool) -> None:
        self.is_closing = True
        self._transcript.meter()
        ending = self._ending(finished, gone=gone)
        written: dict[str, Any] = {"lines": self._transcript.drain(), "first_sequence": self._sequence}
        self._survive(partial(actions.finish, execution=self.execution, ending=ending, by=self._by, **written))

    def _ending(self, finished: Finished, *, gone: bool) -> Ending:
        outcome, sentence, cause = finished.outcome, finished.sentence, finished.cause or ""
        retry_at = finished.retry_at
        if self._halt and outcome != OutcomeClass.OK:
            outcome, sentence, cause = self._halt.outcome, self._halt.sentence, self._halt.cause
            retry_at = self._halt.retry_at
        doubt = self._doubt(finished) if self._released else ""
        return Ending(
            state=endings.state_of(outcome, gone=gone),
            outcome=outcome,
            sentence=clean(sentence),
            answer=clean(finished.text) or self._transcript.text,
            retry_at=retry_at,
            cause=cause,
            gone=gone,
            unmetered=bool(doubt),
            fields={
                **self._transcript.tokens(),
                **self._meter.cost(doubt),
                **self._moments(),
                "provider_ended_at": clock.db_now(-endings.ago(self._ended_at)) if self._ended_at else None,
                "tool_calls": self._limits.called if self._released else 0,
                "provider_version": clean(self._transcript.version)[:40],
                "session_id": clean(finished.session_id or self._transcript.session_id)[:80]
                or self.execution.session_id,
                "details": storable({**finished.details, **self._transcript.told()}),
            },
        )

    def _doubt(self, finished: Finished) -> str:
        if self._transcript.disbelieved:
            return UNKNOWN
        return self._meter.doubt(finished, self._limits, halted=self._halt is not None)

    def _moments(self) -> dict[str, Any]:
        return {"first_event_at": self._transcript.first_event_at, "first_text_at": self._transcript.first_text_at}

    def _abandon(self) -> None:
        """Another worker owns the row: kill what runs, keep what there is; or leave it, if that one goes on with it."""
        if self._run is not None and self._goes_on_elsewhere():
            self._leave(self._run)
            return
        self._let_go()
        log.warning("execution.fenced", execution=self.execution.pk, epoch=self.execution.epoch)
        if self._released:
            used = self._transcript.tokens()
            ending = Ending(ExecutionState.LOST, OutcomeClass.LOST, "", answer=self._transcript.text, fields=used)
            keep = partial(actions.keep_orphan, execution=self.execution, ending=ending, by=self._by)
            database.survive(keep, seconds=SURVIVE_SECONDS)
            self._meter_what_is_left()

    def _meter_what_is_left(self) -> None:
        """Post what was used and not metered before the row was lost. It is spent, whoever owns the row; the ledger knows the rest."""
        if usages := self._transcript.usages():
            database.survive(partial(self._meter.post, usages), seconds=SURVIVE_SECONDS)

    def _let_stay(self, finished: Finished) -> tuple[Ready, Run] | None:
        """Leave the process to the next turn of its session, if it may stay; return what stands by now, and the run that is over.

        Before the end is written, since the next turn may be claimed right after. Until then nobody can ask for it: no turn has the
        number that its prompt expects.
        """
        prompt = self._gate.prompt
        run = self._run.again() if self._run and self.execution.identity.warm and not self._halt else None
        if run is None or finished.session_id not in ("", prompt.session_id):
            return None
        kept = replace(self._gate, prompt=prompt.next(), run=run, ready=time.monotonic(), turns=self._gate.turns + 1)
        over = self._run
        if over is None or not self._standby.keep(kept):
            return None
        self._standing = None
        with self._halt_lock:
            self._run = None
        return kept, over

    def _let_go(self) -> bool:
        """Close the run and return whether its processes are proven gone."""
        if self._run is None:
            return True
        self._run.close()
        gone = self._run.kill()
        self._transcript.overhear(self._run.unreported)
        return gone
