"""Running commands as an operator does: by their words, with what they print and the code they leave."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from django.core.management import call_command

from tests.api.conftest import ada, eva, people

__all__ = ["ada", "eva", "people"]


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run() -> Run:
    """Run a command in this process: `run("say", "ada", "Hello")`."""

    def go(*words: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command(*words, stdout=out, stderr=err)
        except SystemExit as exit:
            return Outcome(int(exit.code or 0), out.getvalue(), err.getvalue())
        return Outcome(0, out.getvalue(), err.getvalue())

    return go
