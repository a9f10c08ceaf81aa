"""A run whose process speaks JSON-RPC: its gate, its events, its end, and how it goes on with what another worker left.

The protocol lives on an event loop of its own thread; the worker's thread talks to it through futures and a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

from execution.ports import (
    Claim,
    Finished,
    NotAdopted,
    NotPrepared,
    ProcessFacts,
    Prompt,
    ProviderEvent,
    Usage,
    UserText,
)
from execution.providers.cli import Broken, CliProcess
from execution.providers.telling import told
from execution.shim import taking
from execution.shim.handle import Nursery
from execution.shim.pipes import Pipes
from execution.toolcalls import Judge


@dataclass(frozen=True, slots=True)
class Given:
    """What a turn gets when its gate opens."""

    texts: tuple[UserText, ...]
    judge: Judge
    claim: Claim | None


class CliRun(CliProcess):
    """A turn with a CLI. `prepare`, `release`, `events` and `again` belong to the worker's thread; the rest to any."""

    def __init__(self, prompt: Prompt, *, nursery: Nursery) -> None:
        self._pipes = Pipes()
        super().__init__(self._pipes, nursery=nursery, session_id=prompt.session_id)
        self._prompt = prompt
        self._given: Future[Given] = Future()
        self._events: queue.SimpleQueue[ProviderEvent | None] = queue.SimpleQueue()
        self._more: Future[bool] = Future()  # whether there will be another turn
        self._claim: Claim | None = None
        self._adopted = False
        self._over = False

    # --- The turn --------------------------------------------------------------------------------------------------------

    def release(self, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim | None = None) -> None:
        """Hand over the prompt."""
        self._over, self._claim = False, claim
        self._given.set_result(Given(texts, judge, claim))

    def go_on(self, process: ProcessFacts, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim) -> Self:
        """Go on with the turn that another worker left in this process. Raises NotAdopted."""
        try:
            inherited = taking.take(process, run=str(claim.execution), epoch=claim.epoch)
            self._adopted = True
            self._inherit(json.loads(inherited.memo), inherited.said)
            self.release(texts, judge=judge, claim=claim)
            self._take_over(inherited)
        except (taking.NotTaken, ValueError, KeyError, TypeError) as error:  # also a memo of another release
            raise NotAdopted(str(error)) from error
        except NotPrepared as error:
            raise NotAdopted(error.finished.sentence) from error
        return self

    def events(self, *, timeout: float) -> Iterator[ProviderEvent | None]:
        """Return what the CLI tells; the last one is Finished, unless the run was killed."""
        return told(self._events, timeout=timeout)

    def unreported(self) -> tuple[Usage, ...]:
        """Return nothing: its events tell all."""
        return ()

    def interrupt(self) -> None:
        """Ask the CLI to end its turn; its result follows."""
        if self._given.done():
            self._on_loop(self._interrupt())

    # --- The end ---------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Its end is written."""
        if self._claim is not None:
            self.settle_run(str(self._claim.execution))

    def close(self) -> None:
        """Wait for the CLI to leave by itself after its result, kill it otherwise, and let go of everything."""
        with self._lock:
            if not self._more.done():
                self._more.set_result(False)
        self._given.cancel()
        self.let_go(politely=self._over)

    # --- On the loop -----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Get to the gate, and take one turn after the other until there is no more, or one did not end as it should."""
        try:
            await self._pipes.connect()
            await self._meet()
            self._ready.set_result(None)
            another = True
            while another:
                another = await self._take_turn()
        except Exception as error:
            self._end(await self._explained(error))
        finally:
            self._events.put(None)
            await self._part()

    async def _take_turn(self) -> bool:
        """Take one turn to its end; return whether another one comes. Until then the shim keeps it, lest its end be lost."""
        more = self._more
        given = await asyncio.wrap_future(self._given)
        await self._turn(given)
        another: bool = await asyncio.wrap_future(more)
        return another

    async def _open_gate(self, given: Given) -> None:
        """Tell the shim that there will be something to take over, unless another worker did."""
        if given.claim is not None and not self._adopted:
            memo = json.dumps(self._memo()).encode()
            await self._pipes.open_gate(run=str(given.claim.execution), epoch=given.claim.epoch, memo=memo)

    async def _part(self) -> None:
        """Let the CLI end, unless it is another worker's to go on with."""
        if self._shim is not None and self._shim.is_left:
            return
        with contextlib.suppress(BrokenPipeError):
            if self._claim is not None:
                await self._pipes.settle(str(self._claim.execution))
            await self._pipes.end_input()

    def _end(self, finished: Finished) -> None:
        if self._ready.done():
            self._events.put(finished)
        else:
            self._ready.set_exception(Broken(finished))

    # --- What each protocol knows ----------------------------------------------------------------------------------------

    async def _meet(self) -> None:
        """Get the CLI to the gate, or meet one that is beyond it."""
        raise NotImplementedError

    async def _turn(self, given: Given) -> None:
        """Hand over the prompt, unless another worker did, and report until the turn is over."""
        raise NotImplementedError

    async def _interrupt(self) -> None:
        raise NotImplementedError

    async def _explained(self, error: Exception) -> Finished:
        raise NotImplementedError

    def _memo(self) -> dict[str, Any]:
        """Return what another worker has to know to go on with this turn."""
        raise NotImplementedError

    def _inherit(self, memo: dict[str, Any], said: bytes) -> None:
        """Learn what the other worker knew, and what it has said since its gate opened."""
        raise NotImplementedError
