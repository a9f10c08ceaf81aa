"""Whether this machine can build sandboxes at all: tried, not guessed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from django.conf import settings

from execution.ports import Confinement, Finished, NotPrepared
from execution.sandbox.profile import BWRAP, Profile
from execution.states import OutcomeClass

_HERE = str(Path(__file__).parent)


def _as_module(name: str) -> str:
    """Return code that runs a program of this directory as a module: as a script it would be compiled anew at every start."""
    return f"import sys; sys.path.append({_HERE!r}); from {name} import main; main()"


PROGRAM = _as_module("program")
EGRESS = _as_module("egress")
TRIAL_SECONDS = 10.0
AGAIN_SECONDS = 30.0  # a failed trial is repeated after so long: somebody may have installed what was missing
_WAIVER = (
    "Or an administrator lets a bot run without a sandbox, which is journaled (docs/recipes/run-without-a-sandbox.md)."
)

_lock = threading.Lock()
_tried: tuple[str, float] | None = None


def is_on() -> bool:
    """Return whether this installation puts CLIs into sandboxes."""
    return bool(settings.FLEET_SANDBOX == "require")


def missing() -> str:
    """Return why no sandbox can be built here and what to do, or an empty text. A trial takes 30 ms and is remembered."""
    global _tried
    with _lock:
        if _tried is None or (_tried[0] and time.monotonic() - _tried[1] > AGAIN_SECONDS):
            _tried = (_try(), time.monotonic())
        return _tried[0]


def reason_for_none() -> str:
    """Return why CLIs get no sandbox on this host, or an empty text."""
    return missing() if is_on() else "FLEET_SANDBOX is off: every bot's CLI runs without a sandbox on this host."


def check_enclosable(confinement: Confinement) -> None:
    """Raise NotPrepared unless this bot's CLI can be put into its sandbox, or needs none."""
    if confinement.waived or not is_on():
        return
    sentence = missing()
    if sentence:
        raise NotPrepared(Finished(OutcomeClass.GOVERNANCE, sentence=f"Nothing was started. {sentence} {_WAIVER}"))


def _try() -> str:
    if not os.access(BWRAP, os.X_OK):
        return (
            f"The sandbox for bots is missing: there is no {BWRAP}. Install bubblewrap "
            "(`apt install bubblewrap`, `dnf install bubblewrap`) and send it again."
        )
    inside = Profile(Path("/"), (), (), ()).argv()
    walls = inside[: inside.index("--chdir")]
    nowhere = '{"rules": [], "log": "/dev/null", "bot": ""}'
    proxied = [sys.executable, "-I", "-S", "-c", PROGRAM, sys.executable, EGRESS, nowhere, "--"]
    trial = [*proxied, *walls, "--", "/bin/true"]
    try:
        done = subprocess.run(trial, capture_output=True, text=True, timeout=TRIAL_SECONDS, env={}, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _forbidden(str(error))
    return "" if done.returncode == 0 else _forbidden(" ".join(done.stderr.split())[:300])


def _forbidden(said: str) -> str:
    return (
        f"The sandbox for bots does not work here ({said or 'no reason given'}). This machine or container forbids user "
        "namespaces: allow them (docs/recipes/run-without-a-sandbox.md says how) and send it again."
    )
