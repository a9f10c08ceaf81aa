"""The worker's end of a shim: start it, give it a CLI to run, and know when everything it ran is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from execution.ports import ProcessFacts
from execution.shim import processes

PROGRAM = Path(__file__).with_name("program.py")
MARKER = "FLEET_RUN"  # names the run in the environment of everything it starts, so that leftovers can be found
START_SECONDS = 10.0


class Shim:
    """One shim process with the pipes of the CLI it will run. Methods may be called from any thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM), str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={},
                cwd="/",
                start_new_session=True,
            )
        self._control = ours
        self._heard = b""
        self._lock = threading.Lock()
        self.marker = uuid.uuid4().hex
        self.exit_status: int | None = None
        self._gone = False
        self._deaf = False

    @property
    def pid(self) -> int:
        """Return the shim's own number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Return whether the shim still runs."""
        return self._process.poll() is None

    def take_streams(self) -> list[int]:
        """Return the descriptors of the CLI's stdin, stdout and stderr; they are the caller's from now on, and nobody else's."""
        return [_taken(file) for file in self._pipes()]

    def _pipes(self) -> list[IO[bytes]]:
        return [file for file in (self._process.stdin, self._process.stdout, self._process.stderr) if file is not None]

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        secrets: Mapping[str, str] | None = None,
    ) -> ProcessFacts:
        """Start the CLI and return the shim as the process that stands for its whole tree. Raises OSError when it cannot start.

        `secrets` are handed over in pipes: the CLI finds a descriptor's number in the variable, never the secret itself.
        """
        hidden = _pairs(secrets or {})
        variables = _pairs({**environment, MARKER: self.marker})
        fields = (str(cwd), str(len(argv)), *argv, str(len(hidden)), *hidden, *variables)
        frame = b"\0".join(os.fsencode(field) for field in fields)
        self._control.sendall(len(frame).to_bytes(8, "big") + frame)
        answer = self._hear(("started", "failed"), START_SECONDS)
        if answer is None:
            raise OSError(0, "the process that supervises it did not start")
        word, number = answer
        if word == "failed":
            raise OSError(int(number), os.strerror(int(number)), argv[0])
        return processes.facts(self.pid)

    def stop(self, *, grace: float) -> None:
        """Ask the shim to end the tree: SIGTERM, after `grace` seconds SIGKILL."""
        with contextlib.suppress(OSError):
            self._control.sendall(f"stop {grace}\n".encode())

    def wait_gone(self, seconds: float) -> bool:
        """Wait until the whole tree is proven gone; False when that could not be seen in time."""
        if not self._gone and self._hear(("gone", "failed"), seconds) is None and self._has_ended():
            self._gone = self._hunt(seconds)  # the shim itself was killed: nobody else would look for its tree
        return self._gone and self._has_ended()

    def _has_ended(self) -> bool:
        """Return whether the shim itself is over; its last word comes a moment before its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0 if self._gone or self._deaf else 0)
        return not self.alive

    def close(self) -> None:
        """Let go of the shim; if it still runs, it takes this for our death and ends its tree."""
        self._control.close()
        for file in self._pipes():
            with contextlib.suppress(OSError):
                file.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)

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
            self.exit_status = int(rest)
        self._gone = self._gone or word in ("gone", "failed")

    def _next_line(self, until: float) -> str | None:
        while b"\n" not in self._heard:
            try:
                self._control.settimeout(max(0.001, until - time.monotonic()))
                piece = self._control.recv(4096)
            except OSError:
                return None
            if not piece:
                self._deaf = True
                return None
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def _hunt(self, seconds: float) -> bool:
        """Kill whatever carries our marker, until nothing does."""
        until = time.monotonic() + seconds
        while left := processes.marked(MARKER, self.marker):
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True


def _pairs(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def _taken(file: IO[bytes]) -> int:
    descriptor = os.dup(file.fileno())
    file.close()
    return descriptor


class Nursery:
    """Keeps one shim ready, so that a turn does not wait for an interpreter to start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: Shim | None = None

    def prepare(self) -> None:
        """Start a spare unless there is one."""
        with self._lock:
            if self._spare is None or not self._spare.alive:
                self._spare = Shim()

    def take(self) -> Shim:
        """Return a shim nobody else has; the next spare is started in the background."""
        with self._lock:
            shim, self._spare = self._spare, None
        threading.Thread(target=self.prepare, name="shim:spare", daemon=True).start()
        return shim if shim is not None and shim.alive else Shim()
