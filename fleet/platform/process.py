"""One server process of ours: started, asked whether it is ready, stopped, and treated badly on purpose by tests."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil

from fleet.platform.leftovers import STOP_SECONDS, Leftovers, left, send

START_SECONDS = 30.0


class ServerFailed(RuntimeError):
    """An embedded server did not start; the text ends with what it said itself."""


class EmbeddedServer:
    """A server process in `directory`; the subclasses say how it is prepared, started and asked whether it is ready."""

    name: str
    stop_signal: signal.Signals
    force_signal: signal.Signals

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect to; known before the server runs."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Bring the directory into the state the server starts from. Does nothing twice."""
        raise NotImplementedError

    def command(self, *, dies_with_parent: bool = True) -> list[str]:
        """Return the command that runs the prepared server in the foreground."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Say whether the server answers a client."""
        raise NotImplementedError

    @property
    def leftovers(self) -> Leftovers:
        """What an earlier start may have left in this directory."""
        raise NotImplementedError

    def end_leftover(self) -> None:
        """End a server that an earlier start left behind, with all of its processes. Raises StillThere."""
        self.leftovers.end(self.stop_signal, self.force_signal)

    @property
    def pid(self) -> int | None:
        """The process started by `start()`, while it lives."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> str:
        """Start the server, wait until it answers, and return its URL. What a killed one left of itself is waited for."""
        self.prepare()
        self.leftovers.clear()
        # The tether is to the starting thread, and only the main thread surely lives as long as we want the server.
        from_main = threading.current_thread() is threading.main_thread()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(dies_with_parent=from_main),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
            )  # fmt: skip
        self.wait_until_ready()
        return self.url

    def wait_until_ready(self) -> None:
        """Return once the server answers; `ServerFailed` when it ended or `START_SECONDS` passed."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(f"{self.name} did not start in {self.directory}. It said:\n{self.last_words()}")
            time.sleep(0.02)

    def last_words(self) -> str:
        """Return the end of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:]) if self.log.exists() else ""

    def stop(self) -> None:
        """Stop the server in order, or by force when it does not end within `STOP_SECONDS`."""
        if self._process is None:
            return
        self.resume()
        for number in (self.stop_signal, self.force_signal, signal.SIGKILL):
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def kill(self) -> None:
        """End the server and all that it started as a power cut would: SIGKILL, nothing flushed, by none of them."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # it starts nothing more
        children = self._children()
        self._process.kill()
        send(children, signal.SIGKILL)
        left(children, STOP_SECONDS)
        self._process.wait()
        self._process = None

    def restart(self) -> str:
        """Stop the server and start it again at the same address."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze the server and its children (SIGSTOP): connections stay open and nothing answers."""
        self._signal_tree(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server continue."""
        self._signal_tree(signal.SIGCONT)

    def _signal_tree(self, number: signal.Signals) -> None:
        if self.pid is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [psutil.Process(self.pid), *self._children()]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def _children(self) -> list[psutil.Process]:
        """Return every process below the server, none when it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []
