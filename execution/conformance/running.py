"""Runs cases and says how each ended."""

from __future__ import annotations

import itertools
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from execution.conformance.bench import Bench, Seen, Unkept, Words
from execution.conformance.cases import CASES, applicable
from execution.conformance.model import CheckModel
from execution.ports import ExecutionProvider, NotPrepared, Prompt

_AT_ONCE = 3  # of the cases that mostly wait for the CLI to give up trying again; each is a CLI of some 200 MB
_ALONE = "error: window"  # its login is another one
Login = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Result:
    """How one case ended. `sentence` says what was not kept; empty when all was."""

    case: str
    kept: bool
    sentence: str
    seconds: float


def as_ever(case: str) -> AbstractContextManager[None]:
    """Return the login of a case when none needs another."""
    return nullcontext()


@dataclass(frozen=True)
class Course:
    """What the cases of a check have in common. `login` surrounds each case."""

    provider: ExecutionProvider
    model: CheckModel
    seen: Seen
    login: Login = as_ever
    words: Words = field(default_factory=Words)

    def results(self, names: Sequence[str] = ()) -> Iterator[Result]:
        """Run the cases and yield how each ended, in their order; those of errors some at a time, since they ask nothing of the model."""
        wanted = names or applicable(self.provider.capabilities)
        for waits, group in itertools.groupby(wanted, key=_mostly_waits):
            with ThreadPoolExecutor(_AT_ONCE if waits else 1) as some:
                yield from some.map(self.result, group)

    def result(self, name: str) -> Result:
        """Run one case in a home of its own."""
        began, sentence = time.monotonic(), ""
        with tempfile.TemporaryDirectory(prefix="fleet-check-", ignore_cleanup_errors=True) as place:
            if not _mostly_waits(name):
                self.model.heard.clear()
            try:
                with self.login(name):
                    bench = Bench(self.provider, self.model, _prompt(self.provider, Path(place)), self.seen, self.words)
                    CASES[name](bench)
            except Unkept as unkept:
                sentence = str(unkept)
            except NotPrepared as refused:
                sentence = refused.finished.sentence
            except Exception as error:
                sentence = f"The check itself broke: {type(error).__name__}: {error}."
        return Result(name, not sentence, sentence, time.monotonic() - began)


def _mostly_waits(name: str) -> bool:
    return name.startswith("error") and name != _ALONE


def _prompt(provider: ExecutionProvider, place: Path) -> Prompt:
    (place / "workspace").mkdir()
    return Prompt(
        system_prompt="You are being checked.",
        model=provider.capabilities.model_for("claude-haiku-4-5"),
        workspace=place / "workspace",
        home=place / "home",
        session_id=str(uuid.uuid4()),
        session_turns=0,
        tools=("Bash",),
    )
