"""A turn that another worker began: the same as any other attempt, but for its beginning."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import structlog

from execution import actions, ports, queries
from execution.engine import workspace
from execution.engine.attempt import Attempt
from execution.engine.endings import Left
from execution.engine.gatekeeper import Gatekeeper
from execution.engine.halts import Halt
from execution.ports import Claim, Finished, NotAdopted, Run
from execution.shim import leftovers, processes
from execution.states import EventKind, OutcomeClass
from fleet.kernel import clock

log = structlog.get_logger(__name__)


class Adoption(Attempt):
    """Goes on with a released turn. What the provider has said is heard once more from the beginning; what is written is not again."""

    def _begin(self) -> Run:
        self._released = True
        self._left_alone = process = processes.of(self.execution)
        prompt, texts = self._survive(self._read)
        self._bound(prompt, process)
        self._limits.began_ago((clock.now() - (self.execution.released_at or clock.now())).total_seconds())
        self._survive(self._obey_orders)
        if self._leaving:
            self._stay_away()
        gatekeeper = Gatekeeper(self.execution, workspace=prompt.workspace, refused=self._refuse)
        claim = Claim(self.execution.pk, self.execution.epoch)
        try:
            run = self._provider.adopt(prompt, process, texts, judge=gatekeeper.judge, claim=claim)
        except NotAdopted as error:
            self._give_up(str(error))
        self._left_alone = None
        self._own(run)
        return run

    def _read(self) -> tuple[ports.Prompt, tuple[ports.UserText, ...]]:
        """Learn how far it is written; return what its provider has to know."""
        done = actions.written(self.execution)
        self._sequence, self._done, self._refused = done.next_sequence, done.through, done.refused
        return workspace.prompt_for(self.execution, writes=False), actions.texts_of(self.execution)

    def _can_be_left(self) -> bool:
        """Return whether the next worker can have it. While this one still connects, nothing that it could have spoilt has begun."""
        return (self._run is None or super()._can_be_left()) and self._halt is None and not self.is_closing

    def halt(self, halt: Halt, *, fenced: bool = False) -> None:
        """End this attempt. A worker without a database gives up what it runs, and of this nothing runs here as long as it connects:

        should another one have it meanwhile, the shim refuses us.
        """
        if self._run is not None or not halt.hears_out:
            super().halt(halt, fenced=fenced)

    def _abandon(self) -> None:
        """Another worker owns the row. What was not taken over yet is that one's, whoever ends it."""
        if self._left_alone is None:
            super()._abandon()
        self._left_alone = None

    def _stay_away(self) -> NoReturn:
        """Touch nothing: the next worker goes on with it, or another one does already."""
        self._left_alone = None
        log.info("execution.left", execution=self.execution.pk, epoch=self.execution.epoch)
        raise Left

    def _give_up(self, why: str) -> NoReturn:
        """Nobody can go on with it: end what is left, and keep what can be recovered. Unless it is another worker's to say so."""
        if self._leaving or not self._survive(partial(queries.is_owned, self.execution)):
            self._stay_away()
        log.warning("execution.not_adopted", execution=self.execution.pk, why=why)
        self._let_go()
        self._survive(partial(actions.close_as_lost, execution=self.execution, by=self._by))
        raise Left

    def _obey_orders(self) -> None:
        """A stop may have come while nobody was there: then it is taken over only to be ended."""
        for halted in actions.halted_by([self.execution]).values():
            self.halt(Halt(halted.outcome, halted.sentence, at_once=halted.outcome == OutcomeClass.GOVERNANCE))

    def _refuse(self, **call: Any) -> None:
        if call["call"] not in self._refused:
            self._transcript.aside(EventKind.TOOL_DENIED, **call)

    def _note(self, event: ports.ProviderEvent) -> None:
        if self._taken <= self._done:
            self._transcript.recall(event)
        else:
            super()._note(event)

    def _close(self, finished: Finished) -> None:
        """Write the end. What was not taken over, whatever came between, is one that nobody can go on with: nothing of it was heard."""
        if self._run is None:
            self._give_up(finished.sentence)
        super()._close(finished)

    def _moments(self) -> dict[str, Any]:
        """The worker that began it heard the first event and the first text; they are in the database."""
        return {}

    def _ending(self, finished: Finished, *, gone: bool) -> actions.Ending:
        """Return how it ended. One that is stopped before it was heard again keeps what the other worker had shown."""
        ending = super()._ending(finished, gone=gone)
        return ending if ending.answer else replace(ending, answer=queries.shown_text(self.execution))

    def _let_stay(self, finished: Finished) -> None:
        """Nobody knows for which bot's texts its process was started: it does not stay."""

    def _let_go(self) -> bool:
        if self._left_alone is not None:
            return leftovers.end(self._left_alone)
        return super()._let_go()
