"""Taking over what another worker has left at a shim."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from execution.ports import ProcessFacts
from execution.shim import processes
from execution.shim.doors import VERSION, peer
from execution.shim.handle import Shim
from execution.shim.keys import key_of, place_of_doors

TAKE_SECONDS = 5.0
_GRACE_SECONDS = 0.5
_GONE_SECONDS = 5.0


class NotTaken(Exception):
    """The shim is gone, or does not let us in: what it ran cannot be taken over."""


class TakenShim(Shim):
    """A shim that another worker has started and left."""

    def __init__(self, process: ProcessFacts, control: socket.socket, data: socket.socket, *, heard: bytes) -> None:
        super().__init__(control, data, process.marker)
        self._heard = heard
        self._facts = process

    @property
    def pid(self) -> int:
        """Return the shim's own number."""
        return self._facts.pid

    @property
    def alive(self) -> bool:
        """Return whether the shim still runs."""
        return processes.is_alive(self._facts.pid, self._facts.started_at)

    def _ended_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.alive and time.monotonic() < until:
            time.sleep(0.005)
        return not self.alive


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a worker left: the shim, the memo it gave it, and everything it had said to the CLI since the gate opened."""

    shim: TakenShim
    memo: bytes
    said: bytes


def take(process: ProcessFacts, *, run: str, epoch: int) -> Inheritance:
    """Take over what another worker has left at this shim, as the one whom the database has given this epoch. Raises NotTaken."""
    control = socket.socket(socket.AF_UNIX)
    try:
        control.settimeout(TAKE_SECONDS)
        _knock(control, process.marker)
        control.sendall(b" ".join([b"take", VERSION, key_of(process.marker).encode(), run.encode(), b"%d" % epoch]))
        answer, ends, _, _ = socket.recv_fds(control, 4096, 1)
        line, _, rest = answer.partition(b"\n")
        word, *numbers = line.split()
        if word != b"taken" or len(ends) != 1:
            raise NotTaken(line.decode())
        memo, said = int(numbers[0]), int(numbers[1])
        while len(rest) < memo + said:
            rest += _more(control)
    except (OSError, ValueError) as error:
        control.close()
        raise NotTaken(str(error)) from error
    except NotTaken:
        control.close()
        raise
    shim = TakenShim(process, control, socket.socket(fileno=ends[0]), heard=rest[memo + said :])
    return Inheritance(shim, rest[:memo], rest[memo : memo + said])


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that nobody is there for: its shim, its name, and the highest epoch the shim has heard of."""

    process: ProcessFacts
    run: str
    epoch: int


def waiting() -> Iterator[Waiting]:
    """Ask at every door of this machine, and yield the runs that wait for another worker."""
    for door in place_of_doors().iterdir():
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as control:
            control.settimeout(TAKE_SECONDS)
            _knock(control, door.name)
            control.sendall(b" ".join([b"who", VERSION, key_of(door.name).encode()]))
            word, *told = control.recv(512).split()
            if word == b"waits":
                yield Waiting(processes.facts(peer(control)[0], door.name), told[0].decode(), int(told[1]))


def end(left: Waiting) -> bool:
    """End what waits though nobody is going to go on with it; return whether its tree is proven gone."""
    try:
        shim = take(left.process, run=left.run, epoch=left.epoch + 1).shim
    except NotTaken:
        return False  # somebody has come for it meanwhile, or it is over
    shim.stop(grace=_GRACE_SECONDS)
    gone = shim.wait_gone(_GONE_SECONDS)
    shim.close()
    return gone


def _more(control: socket.socket) -> bytes:
    piece = control.recv(65536)
    if not piece:
        raise NotTaken("it ended meanwhile")
    return piece


def _knock(control: socket.socket, marker: str) -> None:
    """Connect to the shim's door, however long the path of the directory is: an address may have 107 bytes."""
    place = os.open(place_of_doors(), os.O_PATH | os.O_DIRECTORY)
    try:
        control.connect(f"/proc/self/fd/{place}/{marker}")
    finally:
        os.close(place)
