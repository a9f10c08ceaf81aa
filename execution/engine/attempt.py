"""One attempt at an execution: claim → process at the spend gate → release → follow → close."""

from __future__ import annotations

import datetime as dt
import errno
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from execution import actions, ports
from execution.actions import Ending
from execution.actions.recording import Line
from execution.engine import workspace
from execution.engine.gatekeeper import Gatekeeper
from execution.engine.halts import GRACE_SECONDS, Halt, Limits
from execution.engine.memory import Memory
from execution.engine.standby import Ready, Standby, bring_to_the_gate
from execution.engine.transcript import COALESCE_SECONDS, Transcript, clean
from execution.models import Execution
from execution.ports import Finished, NotPrepared, ProcessFacts, Run, Usage
from execution.providers import registry
from execution.states import EventKind, ExecutionState, OutcomeClass
from fleet.kernel import clock, database
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Fenced, Refused

log = structlog.get_logger(__name__)
SURVIVE_SECONDS = 20.0  # as long as a worker without a database may believe that it still owns anything
PAID_SURVIVE_SECONDS = (
    300.0  # by then nothing runs any more, and the row itself says whose it is: what was paid is worth the wait
)
_FAULT = "Something broke inside Fleet while this was running. The worker's log has the details; please try again."
_SILENT_END = "The provider ended without saying how. Please try again."
_AWAY = "The database could not be reached for too long, so the worker stopped this by itself. Please try again."


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
        self._halt_lock = threading.Lock()
        self._halted_at = 0.0
        self._fenced = False
        self._released = False
        self.is_closing = False
        self._ended_at = 0.0
        self._sequence = 1
        self._cost: dict[str, Any] = {}
        self._transcript = Transcript(write=self._write, meter=self._meter)

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
        except (DatabaseError, InterfaceError) as error:
            log.error("execution.left_to_the_sweep", execution=self.execution.pk, error=str(error))
        finally:
            gone = self._let_go()
            self._memory.let_go()
            if gone and self._standing is not None:
                self._standby.notes.ended(self._standing, "its last turn ended it")

    def _carry(self) -> Finished:
        """Return how the provider ended; every failure is turned into an end with a sentence."""
        try:
            return self._follow(self._begin())
        except NotPrepared as failure:
            return failure.finished
        except Refused as refusal:
            outcome = OutcomeClass.GOVERNANCE if refusal.code == "killed" else OutcomeClass.STOPPED
            return Finished(outcome, sentence=refusal.sentence)
        except Fenced:
            raise
        except (DatabaseError, InterfaceError):
            log.exception("execution.database_away", execution=self.execution.pk)
            return Finished(OutcomeClass.ERROR, sentence=_AWAY)
        except OSError as error:
            log.exception("execution.machine_refuses", execution=self.execution.pk)
            return Finished(OutcomeClass.ERROR, sentence=_refusal_of_the_machine(error))
        except Exception:
            log.exception("execution.fault", execution=self.execution.pk)
            return Finished(OutcomeClass.ERROR, sentence=_FAULT)

    def _begin(self) -> Run:
        """Bring the process to the spend gate, commit the release, and only then hand over the prompt."""
        if self.execution.attempt > 1:
            self._sequence = actions.next_sequence(self.execution)
        prompt = workspace.prompt_for(self.execution)
        self._gate = gate = self._at_the_gate(prompt)
        run, process = gate.run, gate.process.result()
        self._check_not_halted()
        texts = self._survive(partial(self._release, gate, process))
        self._limits = Limits(
            seconds=prompt.max_seconds,
            tool_calls=prompt.max_tool_calls,
            stall_seconds=settings.FLEET_STALL_SECONDS,
            repeats=settings.FLEET_REPEATED_CALLS,
        )
        self._memory = Memory(process, megabytes=prompt.max_megabytes)
        self._memory.enclose()
        self._released = True
        refused = partial(self._transcript.aside, EventKind.TOOL_DENIED)
        gatekeeper = Gatekeeper(self.execution, workspace=prompt.workspace, refused=refused)
        run.release(texts, judge=gatekeeper.judge)
        return run

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

    def _release(self, gate: Ready, process: ProcessFacts | None) -> tuple[ports.UserText, ...]:
        return actions.release(
            execution=self.execution,
            process=process,
            spawned_ago=_ago(gate.began),
            ready_ago=_ago(gate.ready),
            by=self._by,
        )

    def _follow(self, run: Run) -> Finished:
        """Take the provider's events until it finishes; what a killed one had still to say is not waited for."""
        for event in run.events(timeout=COALESCE_SECONDS):
            if event is None:
                self._transcript.flush(only_due=True)
            else:
                self._take(event)
            if isinstance(event, Finished):
                self._ended_at = time.monotonic()
                return event
            self._watch_limits()
            if self._halt and self._halt.at_once and (event is None or not self._halt.hears_out):
                break
        return Finished(OutcomeClass.ERROR, sentence=_SILENT_END)

    def _take(self, event: ports.ProviderEvent) -> None:
        if self._halt and isinstance(event, ports.TextDelta):
            return  # it was told to stop: its answer ends here
        self._limits.alive()
        match event:
            case ports.TextDelta():
                self._limits.written += len(event.text.encode("utf-8", "replace"))
            case ports.ToolStarted():
                self._limits.tool_started(event)
            case ports.ToolFinished():
                self._limits.tool_finished(event.call_id)
        self._transcript.take(event)

    def _watch_limits(self) -> None:
        if self._halt is None:
            reached = self._limits.reached()
            if reached:
                self.halt(reached)
        elif not self._halt.at_once and time.monotonic() - self._halted_at > GRACE_SECONDS:
            self.halt(Halt(self._halt.outcome, self._halt.sentence, at_once=True))

    # --- What it writes ----------------------------------------------------------------------------------------------

    def _survive(self, write: Callable[[], Any]) -> Any:
        if self._fenced:
            raise Fenced(f"Execution {self.execution.pk} was given up.")
        return database.survive(write, seconds=PAID_SURVIVE_SECONDS if self._released else SURVIVE_SECONDS)

    def _write(self, lines: list[Line]) -> None:
        write = partial(actions.record_events, execution=self.execution, first_sequence=self._sequence, lines=lines)
        self._sequence = self._survive(write)

    def _meter(self, usages: list[Usage]) -> None:
        metered = self._survive(
            partial(actions.meter, execution=self.execution, usages=usages, billing=self._provider.billing())
        )
        if metered is None:
            return
        self._cost = {"cost_nano_usd": metered.total_nano_usd, "cost_basis": metered.basis}
        self._transcript.aside(EventKind.USAGE, **self._transcript.tokens(), cost_nano_usd=metered.total_nano_usd)
        if metered.exhausted:
            self.halt(
                Halt(
                    OutcomeClass.BUDGET,
                    "The budget for this is used up, so it was stopped here. The budget page shows which one and when it starts anew.",
                )
            )

    # --- Its end -----------------------------------------------------------------------------------------------------

    def _close(self, finished: Finished) -> None:
        """Write the end. After a good answer its process stays, or leaves meanwhile; any other end is written after it is gone."""
        if self._halt and self._halt.give_back and not self._released:
            self._let_go()
            actions.requeue(execution=self.execution, by=self._by, why="its worker was stopped")
            return
        if finished.outcome == OutcomeClass.OK:
            stays = self._let_stay(finished)
            self._finish(finished, gone=False)
            if stays is not None:
                self._standby.notes.stands_by(stays)
            elif self._let_go():
                actions.note_gone(execution=self.execution, by=self._by)
        else:
            self.weigh()  # what the kernel killed for its memory ends as if it had broken
            self._finish(finished, gone=self._let_go())

    def _finish(self, finished: Finished, *, gone: bool) -> None:
        self.is_closing = True
        self._transcript.meter()
        ending = self._ending(finished, gone=gone)
        lines = self._transcript.drain()
        self._survive(
            partial(
                actions.finish,
                execution=self.execution,
                ending=ending,
                lines=lines,
                first_sequence=self._sequence,
                by=self._by,
            )
        )

    def _ending(self, finished: Finished, *, gone: bool) -> Ending:
        outcome, sentence, cause = finished.outcome, finished.sentence, finished.cause or ""
        if self._halt and outcome != OutcomeClass.OK:
            outcome, sentence, cause = self._halt.outcome, self._halt.sentence, self._halt.cause
        return Ending(
            state=_state_of(outcome, gone=gone),
            outcome=outcome,
            sentence=clean(sentence),
            answer=clean(finished.text) or self._transcript.text,
            retry_at=finished.retry_at,
            cause=cause,
            gone=gone,
            fields={
                **self._transcript.tokens(),
                **self._cost,
                "first_event_at": self._transcript.first_event_at,
                "first_text_at": self._transcript.first_text_at,
                "provider_ended_at": clock.db_now(-_ago(self._ended_at)) if self._ended_at else None,
                "tool_calls": self._limits.called if self._released else 0,
                "provider_version": self._transcript.version,
                "session_id": finished.session_id or self._transcript.session_id or self.execution.session_id,
                "details": dict(finished.details),
            },
        )

    def _abandon(self) -> None:
        """Another worker owns the row: kill what runs, keep what there is."""
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
        usages = self._transcript.usages()
        if usages:
            billing = self._provider.billing()
            post = partial(actions.meter, execution=self.execution, usages=usages, billing=billing)
            database.survive(post, seconds=SURVIVE_SECONDS)

    def _let_stay(self, finished: Finished) -> Ready | None:
        """Leave the process to the next turn of its session, if it may stay.

        Before the end is written, since the next turn may be claimed right after. Until then nobody can ask for it: no turn has the
        number that its prompt expects.
        """
        prompt = self._gate.prompt
        run = self._run.again() if self._run and self.execution.identity.warm and not self._halt else None
        if run is None or finished.session_id not in ("", prompt.session_id):
            return None
        kept = replace(self._gate, prompt=prompt.next(), run=run, ready=time.monotonic(), turns=self._gate.turns + 1)
        if not self._standby.keep(kept):
            return None
        self._standing = None
        with self._halt_lock:
            self._run = None
        return kept

    def _let_go(self) -> bool:
        """Close the run and return whether its processes are proven gone."""
        if self._run is None:
            return True
        self._run.close()
        return self._run.kill()


def _refusal_of_the_machine(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full where this bot works, so it could not go on. Make room on the worker's machine, then ask again."
    return (
        f"The worker's machine refused something it needs: {error.strerror or error}. The worker's log has the details."
    )


def _ago(moment: float) -> dt.timedelta:
    """Return how long ago a moment of time.monotonic() was."""
    return dt.timedelta(seconds=time.monotonic() - moment)


def _state_of(outcome: OutcomeClass, *, gone: bool) -> ExecutionState:
    if outcome == OutcomeClass.OK:
        return ExecutionState.SUCCEEDED
    if outcome in (OutcomeClass.STOPPED, OutcomeClass.GOVERNANCE) and gone:
        return ExecutionState.STOPPED
    return ExecutionState.FAILED
