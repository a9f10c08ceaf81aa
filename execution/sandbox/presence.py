"""Whether this machine can build sandboxes at all: tried, not guessed."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from django.conf import settings

from execution.ports import Confinement, Finished, NotPrepared
from execution.sandbox.profile import BWRAP, Profile
from execution.shim.handle import OwnShim
from execution.states import OutcomeClass

# As a module: a script would be compiled anew at every start.
_EGRESS = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); from egress.program import main; main()"
_NOWHERE = '{"rules": [], "log": "/dev/null", "trouble": "", "proxy": {}, "bot": ""}'
TRIAL_SECONDS = 10.0
AGAIN_SECONDS = 30.0  # a failed trial is repeated after so long: somebody may have installed what was missing
_WAIVER = (
    "Or an administrator lets a bot run without a sandbox, which is journaled (docs/recipes/run-without-a-sandbox.md)."
)

_lock = threading.Lock()
_tried: tuple[str, float] | None = None


def is_on() -> bool:
    """Return whether this installation puts CLIs into sandboxes: whatever is not exactly `off` is no order to do without."""
    return bool(settings.FLEET_SANDBOX != "off")


def proxy() -> tuple[str, ...]:
    """Return the command of the proxy that shims keep ready, if CLIs get sandboxes here at all."""
    return (sys.executable, "-I", "-c", _EGRESS) if is_on() else ()


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
    walls = Profile(Path("/"), (), (), ()).argv()
    shim = OwnShim(proxy())
    try:
        shim.start(
            [*walls[: walls.index("--chdir")], "--", "/bin/true"], environment={}, cwd=Path("/"), network=_NOWHERE
        )
        if not shim.wait_gone(TRIAL_SECONDS):
            return _forbidden("it did not end")
    except OSError as error:
        return _forbidden(error.strerror or str(error))
    finally:
        shim.close()
    return "" if shim.exit_status == 0 else _forbidden(" ".join(shim.last_words.decode(errors="replace").split())[:300])


def _forbidden(said: str) -> str:
    return (
        f"The sandbox for bots does not work here ({said or 'no reason given'}). This machine or container forbids user "
        "namespaces: allow them (docs/recipes/run-without-a-sandbox.md says how) and send it again."
    )
