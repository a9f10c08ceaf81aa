"""The worker's end of a shim: start it, give it a CLI to run, and know when everything it ran is gone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from django.conf import settings

from execution.ports import ProcessFacts
from execution.shim import processes
from execution.shim.keys import key_of, place_of_doors
from execution.shim.leftovers import MARKER, hunt

START_SECONDS = 10.0
SPARE_SECONDS = 1.0
MOST_SPOOLED = 64 * 1024 * 1024
_SIGNALS = frozenset(int(number) for number in signal.Signals)
_ROOT = Path(__file__).parents[2]
# Not `-m`, which would look for the package in the current directory; as a module it is compiled only once.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from execution.shim.program import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]), *(word.encode() for word in sys.argv[4:]))"
)


class Shim:
    """A shim as its worker sees it. Methods may be called from any thread."""

    def __init__(self, control: socket.socket, data: socket.socket, marker: str) -> None:
        self._control, self._data = control, data
        self.marker = marker
        self.exit_status: int | None = None
        self._struck_by = 0
        self.last_words = b""  # the end of what the CLI wrote to stderr, once it has ended
        self._heard = b""
        self._lock = threading.Lock()
        self._gone = False
        self._deaf = False
        self.is_left = False

    @property
    def pid(self) -> int:
        """Return the shim's own number."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Return whether the shim still runs."""
        raise NotImplementedError

    def _ended_within(self, seconds: float) -> bool:
        """Wait for the shim's own end."""
        raise NotImplementedError

    def take_stream(self) -> socket.socket:
        """Return the socket to what the CLI reads and writes (see `moving`); it is the caller's from now on."""
        return self._data

    def stop(self, *, grace: float) -> None:
        """Ask the shim to end the tree: SIGTERM, after `grace` seconds SIGKILL."""
        with contextlib.suppress(OSError):
            self._control.sendall(f"stop {grace}\n".encode())

    def wait_gone(self, seconds: float) -> bool:
        """Wait until the whole tree is proven gone; False when that could not be seen in time."""
        if not self.hears_gone(seconds) and self._has_ended():
            self._gone = hunt(self.marker, seconds)  # the shim itself was killed: nobody else would look for its tree
        return self._gone and self._has_ended()

    def hears_gone(self, seconds: float) -> bool:
        """Wait until the shim says that the tree is gone; the shim itself may stay for another worker."""
        heard = self._gone or self._hear(("gone", "failed"), seconds)
        return bool(heard) or self._gone  # another thread may have heard it

    def _has_ended(self) -> bool:
        """Return whether the shim itself is over; its last word comes a moment before its end."""
        return self._ended_within(2.0 if self._gone or self._deaf else 0)

    def struck(self) -> str:
        """Return which process was ended by a signal that nobody here sent; empty when none was. Known once the tree is gone."""
        return f"its CLI was ended by {name_of(self._struck_by)}" if self._struck_by else ""

    def leave(self) -> None:
        """Go away without ending anything: what runs waits for another worker, if there is something to take over."""
        self.is_left = True
        self._control.close()

    def close(self) -> None:
        """Let go of the shim; if it still runs, it takes this for our death."""
        self._control.close()
        self._data.close()
        self._ended_within(1.0)

    def _hear(self, words: tuple[str, ...], seconds: float) -> tuple[str, str] | None:
        """Read the shim's lines until one begins with one of these words; None when time is over or the shim is."""
        until = time.monotonic() + seconds
        with self._lock:
            while True:
                line = self._next_line(until)
                if line is None:
                    return None
                word, _, rest = line.partition(" ")
                self._note(word, rest)
                if word in words:
                    return word, rest

    def _note(self, word: str, rest: str) -> None:
        if word == "exited":
            status, _, unasked = rest.partition(" ")
            self.exit_status = int(status)
            self._struck_by = signal_of(self.exit_status) if unasked else 0
        elif word == "stderr":
            self.last_words = bytes.fromhex(rest)
        self._gone = self._gone or word in ("gone", "failed")

    def _next_line(self, until: float) -> str | None:
        while b"\n" not in self._heard:
            try:
                self._control.settimeout(max(0.001, until - time.monotonic()))
                piece = self._control.recv(16384)
            except ConnectionError:  # it has ended without reading all that it was told
                piece = b""
            except OSError:
                return None
            if not piece:
                self._deaf = True
                return None
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()


class OwnShim(Shim):
    """A shim this worker has started; `proxy` is the command of the proxy that it keeps ready for a network of the CLI's own."""

    def __init__(self, proxy: Sequence[str] = ()) -> None:
        (control, theirs), (data, their_data) = socket.socketpair(), socket.socketpair()
        ends = [str(end.fileno()) for end in (theirs, their_data)]
        with theirs, their_data:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOT), *ends, *proxy],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[int(end) for end in ends],
                env={},
                cwd="/",
                start_new_session=True,
            )
        self._asking = threading.Lock()
        super().__init__(control, data, uuid.uuid4().hex)

    @property
    def pid(self) -> int:
        """Return the shim's own number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Return whether the shim still runs."""
        return self._status() is None

    def _status(self) -> int | None:
        with self._asking:  # `poll` says None for one that has ended as long as another thread asks, too
            return self._process.poll()

    def struck(self) -> str:
        """Return which process was ended by a signal that nobody here sent; the CLI ends with a shim that was."""
        status = self._status() or 0
        return f"its shim was ended by {name_of(-status)}" if status < 0 else super().struck()

    def _ended_within(self, seconds: float) -> bool:
        if self.alive and seconds > 0:
            with contextlib.suppress(ProcessLookupError):
                end = os.pidfd_open(self.pid)
                waiting = select.poll()
                waiting.register(end, select.POLLIN)
                waiting.poll(seconds * 1000)
                os.close(end)
        return not self.alive

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        secrets: Mapping[str, str] | None = None,
        scratch: Path | None = None,
        network: str = "",
    ) -> ProcessFacts:
        """Start the CLI and return the shim as the process that stands for its whole tree. Raises OSError when it cannot start.

        `network` says whom the proxy lets through (execution.sandbox); empty: the CLI is in the machine's network. `secrets` are
        handed over in pipes: the CLI finds a descriptor's number in the variable, never the secret itself. `scratch` is a directory
        that the shim removes when the tree is gone.
        """
        door = (
            str(place_of_doors()),
            self.marker,
            key_of(self.marker),
            str(settings.FLEET_DETACHED_SECONDS),
            str(MOST_SPOOLED),
        )
        hidden = _pairs(secrets or {})
        variables = _pairs({**environment, MARKER: self.marker})
        command = (str(cwd), str(len(argv)), *argv, str(len(hidden)), *hidden, *variables)
        frame = b"\0".join(os.fsencode(field) for field in (*door, str(scratch or ""), network, *command))
        facts = processes.facts(self.pid, self.marker)  # a CLI that ends at once takes its shim along
        self._control.sendall(len(frame).to_bytes(8, "big") + frame)
        answer = self._hear(("started", "failed"), START_SECONDS)
        if answer is None:
            raise OSError(0, "the process that supervises it did not start")
        word, number = answer
        if word == "failed":
            raise OSError(int(number), os.strerror(int(number)), argv[0])
        return facts


def signal_of(status: int) -> int:
    """Return the signal that ended a process with this exit status, 0 when none did.

    One inside a sandbox is told as shells do it: 128 and its number.
    """
    number = -status if status < 0 else status - 128
    return number if number in _SIGNALS else 0


def name_of(number: int) -> str:
    """Return a signal's name."""
    return signal.Signals(number).name if number in _SIGNALS else f"signal {number}"


def _pairs(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


class Nursery:
    """Keeps one shim ready, so that a turn waits neither for interpreters to start nor for a network to be made."""

    def __init__(self, proxy: Callable[[], Sequence[str]] = tuple) -> None:
        self._proxy = proxy
        self._lock = threading.Lock()
        self._spare: OwnShim | None = None

    def prepare(self) -> None:
        """Start a spare unless there is one."""
        with self._lock:
            if self._spare is None or not self._spare.alive:
                self._spare = OwnShim(self._proxy())

    def take(self) -> OwnShim:
        """Return a shim nobody else has. The next spare is started when the CLI that this one runs has had time to start itself."""
        with self._lock:
            shim, self._spare = self._spare, None
        later = threading.Timer(SPARE_SECONDS, self.prepare)
        later.name, later.daemon = "shim:spare", True
        later.start()
        return shim if shim is not None and shim.alive else OwnShim(self._proxy())
