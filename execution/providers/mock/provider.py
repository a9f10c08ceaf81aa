"""Plays the mock's script in the worker's thread, interruptible at every step."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from budgets.states import Billing
from execution.ports import (
    Capabilities,
    Claim,
    Finished,
    NotAdopted,
    ProcessFacts,
    Prompt,
    ProviderEvent,
    Usage,
    UserText,
)
from execution.providers.mock import script
from execution.providers.steering import Steered
from execution.states import OutcomeClass
from execution.toolcalls import Judge


class MockProvider:
    """Ships with the product: what a person without credentials talks to."""

    capabilities = Capabilities(name="mock", model=script.MODEL, spawns_process=False, tells_reset=False, steers=True)

    def __init__(self) -> None:
        self._unsure: dict[str, bool] = {}

    def check(self) -> str:
        """It can always be used."""
        return ""

    def billing(self) -> Billing:
        """It is priced per token, at nothing."""
        return Billing.API

    def login(self) -> str:
        """It has none that could reach a limit."""
        return ""

    def version(self) -> str:
        """It comes with Fleet."""
        return ""

    def warm_up(self) -> None:
        """There is nothing to warm up."""

    def open(self, prompt: Prompt) -> MockRun:
        """Return a run for this prompt."""
        return MockRun(prompt, unsure=self._unsure)

    def adopt(
        self, prompt: Prompt, process: ProcessFacts, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim
    ) -> MockRun:
        """Refuse: what ran inside a worker has ended with it."""
        raise NotAdopted("The mock has no process.")

    def recover(self, home: Path, session_id: str, uuid: str) -> None:
        """It writes nothing down."""

    def has_heard(self, home: Path, session_id: str, uuid: str) -> bool | None:
        """Return whether a message that it was unsure about was in its turn; None when that was in another process."""
        return self._unsure.pop(uuid, None)


class MockRun:
    """One scripted turn. `unsure` collects what it pretends not to know of: message → whether the turn had it."""

    def __init__(self, prompt: Prompt, *, unsure: dict[str, bool] | None = None) -> None:
        self._prompt = prompt
        self._unsure = {} if unsure is None else unsure
        self._lock = threading.Lock()
        self._listens = False
        self._judge: Judge
        self._texts: tuple[UserText, ...] = ()
        self._stopping = threading.Event()

    def prepare(self) -> None:
        """There is no process."""

    def release(self, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim | None = None) -> None:
        """Take what was asked."""
        self._texts, self._judge, self._listens = texts, judge, True

    def settle(self) -> None:
        """There is nothing to adopt."""

    def leave(self) -> None:
        """What runs inside a worker ends with it."""
        self._stopping.set()

    def events(self, *, timeout: float) -> Iterator[ProviderEvent | None]:
        """Yield the script's events at its pace, None whenever `timeout` seconds pass without one."""
        said = ""
        for delay, event in script.play(self._prompt, self._texts, self._judge, heard=self._heard):
            yield from self._wait(delay, timeout)
            if self._stopping.is_set():
                yield Finished(OutcomeClass.STOPPED, text=said)
                return
            if event is not None:
                said += getattr(event, "text", "")
                yield event

    def _wait(self, seconds: float, timeout: float) -> Iterator[None]:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopping.wait(min(left, timeout)):
            if left > timeout:
                yield None

    def _heard(self) -> tuple[UserText, ...]:
        with self._lock:
            self._listens = False
            return self._texts

    def steer(self, text: UserText) -> Steered:
        """Take a message until the answer begins; the directive `mock:steer` makes it refuse, or not say what it did."""
        with self._lock:
            wish = script.Request.of((*self._texts, text)).directives.get("steer", "")
            if not self._listens or self._stopping.is_set() or wish == "refuse":
                return Steered.REFUSED
            if wish == "deaf":
                self._unsure[text.uuid] = False
                return Steered.UNKNOWN
            self._texts = (*self._texts, text)
            if wish == "mute":
                self._unsure[text.uuid] = True
                return Steered.UNKNOWN
            return Steered.TAKEN

    def unreported(self) -> tuple[Usage, ...]:
        """Return nothing: its events tell all."""
        return ()

    def interrupt(self) -> None:
        """End at the next step."""
        self._stopping.set()

    def kill(self) -> bool:
        """End at the next step; there is no process that could stay."""
        self._stopping.set()
        return True

    def close(self) -> None:
        """Let go."""
        self._stopping.set()

    def is_there(self) -> bool:
        """It has no process that could go away."""
        return not self._stopping.is_set()

    def struck(self) -> str:
        """It has no process that a signal could end."""
        return ""

    def again(self) -> None:
        """There is no process that could stay."""
