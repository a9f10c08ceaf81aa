"""What all CLIs have in common: one process behind a shim that is started, waited for, killed, left to another worker or let go of.

The protocol of each lives on an event loop of its own thread; the worker's threads talk to it through futures and queues.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import structlog

from execution.ports import Finished, NotPrepared, ProcessFacts
from execution.sandbox import forget
from execution.shim.handle import Nursery, Shim
from execution.shim.pipes import Pipes
from execution.shim.taking import Inheritance
from execution.states import OutcomeClass
from fleet.kernel import loops
from fleet.kernel.masking import mask

log = structlog.get_logger(__name__)
LOOP = "providers"
HANDSHAKE_SECONDS = 30.0
EXIT_SECONDS = 3.0  # what the CLI gets to leave by itself once its turn is over
OWN_END_SECONDS = 1.0  # what one that has closed its output gets to be over
GATE_SECONDS = 2.0  # what the shim gets to hear that a turn has begun, before its worker leaves
KILL_GRACE_SECONDS = 0.5  # between SIGTERM and SIGKILL
GONE_SECONDS = 10.0

_ASK_ADMIN = "Please try again; if it stays, an administrator finds more in the worker's log."


class Plan(Protocol):
    """How to start a CLI."""

    @property
    def argv(self) -> tuple[str, ...]:
        """Return the command."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Return all variables it sees."""
        ...

    @property
    def secrets(self) -> Mapping[str, str]:
        """Return what it reads from pipes whose numbers are in these variables."""
        ...

    @property
    def cwd(self) -> Path:
        """Return its directory."""
        ...

    @property
    def scratch(self) -> Path | None:
        """Return a directory that goes when its tree has gone."""
        ...

    @property
    def network(self) -> str:
        """Return whom it reaches, for the proxy of a network of its own; empty: it is in the machine's."""
        ...


class Broken(Exception):
    """The CLI broke before it was ready; carries the end."""

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished.sentence)
        self.finished = finished


class CliProcess:
    """One process of a CLI. `kill` belongs to any thread, `_live` and what it calls to the loop, the rest to the turn's owner."""

    name = "CLI"

    def __init__(self, pipes: Pipes, *, nursery: Nursery, session_id: str) -> None:
        self._pipes, self._nursery, self._session_id = pipes, nursery, session_id
        self._shim: Shim | None = None
        self._scratch: Path | None = None
        self._facts: ProcessFacts  # once it was started here
        self._lock = threading.Lock()
        self._killed = False
        self._ready: Future[None] = Future()
        self._life: Future[None] | None = None

    # --- Its start -------------------------------------------------------------------------------------------------------

    def _spawn(self, plan: Plan) -> ProcessFacts:
        """Start the CLI and its life on the loop. Raises NotPrepared."""
        facts = self._start_cli(plan)
        self._begin_to_live()
        return facts

    def _start_cli(self, plan: Plan) -> ProcessFacts:
        """Start the CLI, and note as whom. Raises NotPrepared."""
        self._scratch = plan.scratch
        with self._lock:
            if self._killed:
                _remove(plan.scratch)
                raise NotPrepared(self._stopped())
            self._shim = shim = self._nursery.take()
        self._pipes.attach(shim)
        try:
            self._facts = shim.start(
                plan.argv,
                environment=plan.environment,
                secrets=plan.secrets,
                cwd=plan.cwd,
                scratch=plan.scratch,
                network=plan.network,
            )
        except OSError as error:
            why = f"It could not be started: {error.strerror}."
            raise NotPrepared(self._stopped() if self._killed else self._broken(why)) from error
        return self._facts

    def _end_cli(self) -> None:
        """End the CLI, so that another can take its place in the same run. Raises NotPrepared."""
        shim = self._shim
        if shim is not None:
            shim.stop(grace=KILL_GRACE_SECONDS)
            if not shim.wait_gone(GONE_SECONDS):
                raise NotPrepared(self._broken("It did not end when it was to begin anew."))
            shim.close()
        _remove(self._scratch)

    def _take_over(self, inherited: Inheritance) -> None:
        """Go on with a CLI that another worker has left. Raises NotPrepared."""
        self._shim = inherited.shim
        self._pipes.attach(inherited.shim)
        self._pipes.gate_is_told.set()
        self._begin_to_live()
        self._wait_ready()

    def _begin_to_live(self) -> None:
        self._life = loops.submit(self._live(), loop=LOOP)

    async def _live(self) -> None:
        """Connect, set `_ready`, and speak with the CLI until it is not needed any more."""
        raise NotImplementedError

    def _wait_ready(self) -> None:
        """Wait until it can take a prompt. Raises NotPrepared."""
        try:
            self._ready.result(HANDSHAKE_SECONDS)
        except TimeoutError:
            self.kill()
            raise NotPrepared(self._broken(f"It was not ready after {HANDSHAKE_SECONDS:.0f} seconds.")) from None
        except Broken as error:
            raise NotPrepared(error.finished) from error

    # --- Its end ---------------------------------------------------------------------------------------------------------

    def is_there(self) -> bool:
        """Return whether it could take a turn: it was not killed, and has not left by itself."""
        return not self._killed and (self._shim is None or self._shim.alive)

    def struck(self) -> str:
        """Return which process was ended by a signal that nobody here sent; known once the tree is gone."""
        return self._shim.struck() if self._shim is not None else ""

    def kill(self) -> bool:
        """Kill the CLI and everything below it; return whether that is proven."""
        with self._lock:
            self._killed = True
            shim = self._shim
        if shim is None:
            return True
        shim.stop(grace=KILL_GRACE_SECONDS)
        return shim.wait_gone(GONE_SECONDS)

    def settle_run(self, run: str) -> None:
        """Tell the shim that nothing of this run is left to take over."""
        self._on_loop(self._pipes.settle(run))

    def leave(self) -> None:
        """Go away without ending anything; the shim waits for another worker."""
        if self._shim is not None:
            self._pipes.gate_is_told.wait(GATE_SECONDS)  # before that, the shim would keep nothing for anybody
            self._shim.leave()
            self._stop_living()

    def let_go(self, *, politely: bool) -> None:
        """Let it leave by itself when it has nothing left to do (`politely`), kill it otherwise, and keep nothing of it."""
        shim = self._shim
        if shim is None or shim.is_left:
            return
        if not (politely and shim.wait_gone(EXIT_SECONDS)):
            self.kill()
        self._stop_living()
        shim.close()
        forget(self._session_id)
        _remove(self._scratch)  # should the shim have been killed, or never have been told of it

    def _stop_living(self) -> None:
        if self._life is not None:
            self._life.cancel()
        self._on_loop(self._pipes.close())

    def _on_loop(self, work: Coroutine[Any, Any, Any]) -> None:
        loops.submit(work, loop=LOOP)

    # --- Explaining ------------------------------------------------------------------------------------------------------

    def _said(self) -> str:
        """Return everything the model has said in this turn so far."""
        return ""

    async def _explain(self, what: str, more: str = "") -> Finished:
        """Turn the end of a CLI that broke into a sentence; by then nothing of it is left."""
        if self._killed:
            return self._stopped()
        await asyncio.to_thread(self._see_it_end)
        return self._broken(what, more)

    def _see_it_end(self) -> None:
        """Kill it; but let one that has closed its output be over first, so that it is known how it ended, and not how we ended it."""
        if self._pipes.output_ended and self._shim is not None:
            self._shim.hears_gone(OWN_END_SECONDS)  # not more: a shim that keeps the turn for another worker stays
        self.kill()

    def _stopped(self) -> Finished:
        return Finished(OutcomeClass.STOPPED, text=self._said(), sentence="Stopped.")

    def _when(self) -> str:
        return "It ended in the middle of the turn." if self._ready.done() else "It ended before it was ready."

    def _broken(self, what: str, more: str = "") -> Finished:
        status = self._shim.exit_status if self._shim else None
        stderr = mask(f"{more} {self._pipes.stderr if self._shim else ''}".strip())
        log.warning("cli.broken", cli=self.name, session=self._session_id, what=what, stderr=stderr, exit_status=status)
        return Finished(
            OutcomeClass.ERROR,
            text=self._said(),
            sentence=f"The {self.name} CLI failed. {what} {_ASK_ADMIN}",
            details={"stderr": stderr, "exit_status": status},
        )


def _remove(scratch: Path | None) -> None:
    """Remove what no shim has."""
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
