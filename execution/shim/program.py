"""The shim: a small process between a worker and the CLI of one run. Started with `python -I -S`, the descriptors of two sockets to
its worker, one for control and one for what the CLI reads and writes (see `moving`), and the command of the proxy for a network of
the CLI's own (see `network`); standard library only.

    worker → shim   one frame (length, NUL-separated): see `Order`; then lines: `stop <grace seconds>`
    shim → worker   lines: `started <pid>`, `stderr <hex of its end>`, `exited <status>[ unasked]`, `gone`; `failed <errno>` when the
                    CLI cannot be started

It is a child subreaper, so that every descendant that loses its parent becomes its own child: when the kernel says that it has no
child left, the whole tree is gone, whatever the tree did with sessions and process groups. The worker's death shows at once as the
end of the socket, and once more by a pidfd. Until the spend gate is open, and after the run is settled, the tree dies with it; in
between the shim waits at its door for another worker.
"""

import os
import select
import sys
import time

from execution.shim.doors import Door
from execution.shim.moving import Cli, Mover, Spool
from execution.shim.network import WayOut
from execution.shim.starting import KILL, Order, prctl
from execution.shim.trees import pidfd_of, remove, send

TERM = 15
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
LAST_GRACE_SECONDS = 0.5  # when nobody is left to ask for more
LAST_WORDS_SECONDS = 1.5  # what a worker gets to read the rest, once the tree is gone
SHORT_WORDS_SECONDS = 0.1  # … and one that had it ended
LOOK_SECONDS = 1.0  # how often strangers that became our children are collected
KILLING_SECONDS = 0.005  # how often one looks while the tree is being ended


def main(control: int, data: int, *proxy: bytes) -> None:
    """Run one CLI to its end, and everything it left behind."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_DUMPABLE, 0)  # no other process of this user looks into our memory or takes our descriptors
    worker = os.getppid()
    way_out = WayOut(list(proxy))
    order = Order(receive_exactly(control, int.from_bytes(receive_exactly(control, 8), "big")))
    try:
        cli = way_out.start(order, (control, data))
    except OSError as error:
        way_out.close()
        remove(order.scratch)
        os.write(control, b"failed %d\n" % (error.errno or 0))
        return
    watch = Watch(order, cli, control, data, worker)
    watch.say(f"started {cli.pid}")
    watch.open_door()
    watch.until_over()
    remove(order.scratch)


def receive_exactly(control: int, count: int) -> bytes:
    """Read so many bytes; leave when the worker goes away before it has said what to do."""
    received = b""
    while len(received) < count:
        piece = os.read(control, count - len(received))
        if not piece:
            sys.exit(0)
        received += piece
    return received


class Watch:
    """Waits for whatever happens first, and knows what follows from it."""

    def __init__(self, order: Order, cli: Cli, control: int, data: int, worker: int) -> None:
        self._order, self._cli, self._control = order, cli, control
        self._worker = pidfd_of(worker, our_parent=True)
        self._mover: Mover
        self._data = data
        self._door: Door | None = None
        self._status: int | None = None
        self._unasked = ""
        self._patience: float | None = None  # when the tree is ended by force; None: it is not being ended
        self._deadline: float | None = None  # until when we wait for another worker; None: one is there
        self._told_to_stop = False
        self._is_gone = False

    def open_door(self) -> None:
        """Make ready what another worker would need, while the CLI is starting up."""
        order = self._order
        try:
            spool = Spool(order.place, order.name, order.most)
            self._door = Door(order.place, order.name, order.key) if spool.whole else None
        except OSError:
            spool = Spool(b"", b"", 0)  # nobody will be able to take over; the run itself needs none of it
        self._mover = Mover(self._cli, spool, self._data)

    def until_over(self) -> None:
        """Serve until the tree is gone and nobody has to hear of it any more."""
        while not self._is_over():
            self._serve(self._ready(self._next_look()))
        until = time.monotonic() + (SHORT_WORDS_SECONDS if self._told_to_stop else LAST_WORDS_SECONDS)
        while not self._mover.is_flushed() and time.monotonic() < until:
            self._mover.move(self._ready(0.1))
        if self._door is not None:
            self._door.close()

    def _is_over(self) -> bool:
        return self._is_gone and (self._told_to_stop or not self._mover.can_change_hands() or self._is_late())

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _next_look(self) -> float:
        return KILLING_SECONDS if self._patience is not None and not self._is_gone else LOOK_SECONDS

    def _ready(self, seconds: float) -> set[int]:
        poll = select.poll()
        wanted = dict.fromkeys(self._mover.hears(), select.POLLIN)
        for end in self._mover.speaks():
            wanted[end] = wanted.get(end, 0) | select.POLLOUT
        others = [self._control, self._worker, self._door.listener if self._door else -1]
        if self._status is None:
            others.append(self._cli.end)
        wanted |= {end: select.POLLIN for end in others if end >= 0}
        for end, what in wanted.items():
            poll.register(end, what)
        return {end for end, _ in poll.poll(seconds * 1000)}

    def _serve(self, ready: set[int]) -> None:
        self._mover.move(ready)
        if self._control in ready:
            self._hear_worker()
        if self._worker in ready:
            self._worker_left()
        if self._door and self._door.listener in ready:
            self._answer_the_door()
        if self._is_late():
            self._end_tree(LAST_GRACE_SECONDS)
        self._look_at_the_tree()

    # --- The worker ----------------------------------------------------------------------------------------------------

    def _hear_worker(self) -> None:
        try:
            line = os.read(self._control, 64).split()
        except OSError:
            line = []
        if not line:
            self._worker_left()
            return
        self._told_to_stop = True
        self._end_tree(float(line[1]))

    def _worker_left(self) -> None:
        """Wait for another one if there is something to take over; otherwise this is the end."""
        self._let_worker_go()
        if self._mover.can_change_hands():
            self._deadline = time.monotonic() + self._order.patience
        else:
            self._told_to_stop = True
            self._end_tree(LAST_GRACE_SECONDS)

    def _let_worker_go(self) -> None:
        for end in (self._control, self._worker):
            if end >= 0:
                os.close(end)
        self._control = self._worker = -1
        self._mover.detach()

    def _answer_the_door(self) -> None:
        caller = self._door.answer(self._mover, at_an_end=self._told_to_stop) if self._door else None
        if caller is None:
            return
        self._let_worker_go()
        self._control, data = caller.control, caller.data
        self._worker = pidfd_of(caller.pid)
        self._deadline = None
        self._mover.attach(data)
        self._tell_of_the_end()

    def say(self, line: str) -> None:
        """Tell the worker, if one is there."""
        try:
            os.write(self._control, line.encode() + b"\n")
        except OSError:
            pass

    def _tell_of_the_end(self) -> None:
        if self._status is not None:
            self.say(f"stderr {self._mover.errors.hex()}")
            self.say(f"exited {self._status}{self._unasked}")
        if self._is_gone:
            self.say("gone")

    # --- The tree ------------------------------------------------------------------------------------------------------

    def _end_tree(self, grace: float) -> None:
        """End every descendant: politely, then by force, until the kernel says that none is left."""
        if self._patience is None and self._has_children():
            send(TERM)
        self._patience = min(self._patience or float("inf"), time.monotonic() + grace)

    def _look_at_the_tree(self) -> None:
        if self._is_gone:
            return
        if not self._has_children():
            self._is_gone = True
            self.say("gone")
        elif self._patience is not None and time.monotonic() >= self._patience:
            send(KILL)

    def _has_children(self) -> bool:
        """Collect children that have ended, noting the CLI's own end; False when no child is left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._cli.pid:
                self._cli_ended(os.waitstatus_to_exitcode(status))

    def _cli_ended(self, status: int) -> None:
        self._status = status
        self._unasked = " unasked" if self._patience is None else ""  # it was not we who ended it
        self._mover.take_errors()
        self.say(f"stderr {self._mover.errors.hex()}")
        self.say(f"exited {status}{self._unasked}")
        self._end_tree(LAST_GRACE_SECONDS)
