"""The door of a shim, at which another worker asks for what the last one left. Standard library only.

    worker → shim   `take <version> <key> <run> <epoch>`
    shim → worker   `taken <bytes of memo> <bytes said to the CLI>` with the descriptor of a socket (see `moving`), then those bytes;
                    or `refused <why>`
    worker → shim   `who <version> <key>`
    shim → worker   `waits <run> <epoch>`: nobody is there for this run; or `refused <why>`

Only a process of our own user that knows the key is let in, and only with a higher epoch than anybody before: the database has given
it that number, so whoever comes with a lower one, or with the same, is late.
"""

import _socket
import os
from _operator import _compare_digest

from execution.shim.moving import Mover

VERSION = (
    b"1"  # a shim lives longer than the release it comes from: who speaks differently is refused, never misunderstood
)
_PATIENCE_SECONDS = 0.5
_SOL_SOCKET, _SO_PEERCRED, _SCM_RIGHTS = 1, 17, 1


class Caller:
    """A worker that was let in."""

    def __init__(self, pid: int, control: int, data: int) -> None:
        self.pid, self.control, self.data = pid, control, data


class Door:
    """A socket with a name in a directory of ours that nobody else may enter."""

    def __init__(self, place: bytes, name: bytes, key: bytes) -> None:
        self._place, self._name, self._key = place, name, key
        self._listening = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        os.chdir(place)  # a socket's path may have 107 bytes, a name always fits
        before = os.umask(0o177)
        self._listening.bind(name)
        os.umask(before)
        self._listening.listen(4)
        self.listener = self._listening.fileno()

    def close(self) -> None:
        """Take the name away."""
        try:
            os.unlink(self._place + b"/" + self._name)  # noqa: PTH108 - importing pathlib doubles the time to start
        except OSError:
            pass

    def answer(self, mover: Mover, *, at_an_end: bool) -> Caller | None:
        """Let somebody in, or send them away with a reason."""
        try:
            number, _ = self._listening._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
        except OSError:
            return None
        caller = _socket.socket(fileno=number)
        try:
            caller.settimeout(_PATIENCE_SECONDS)
            pid, user = peer(caller)
            asked = caller.recv(512).split()
            why = b"stranger" if user != os.getuid() else self._refuses(asked, mover, at_an_end)
            if not why and asked[0] == b"take":
                return _let_in(caller, pid, mover)
            caller.sendall(b"refused " + why + b"\n" if why else b"waits %b %d\n" % mover.run[:2])
        except OSError:
            pass
        caller.close()
        return None

    def _refuses(self, asked: list[bytes], mover: Mover, at_an_end: bool) -> bytes:
        """Return why not; nothing when everything is right, and then this is the highest epoch."""
        if asked[:2] not in ([b"take", VERSION], [b"who", VERSION]) or len(asked) != (5 if asked[0] == b"take" else 3):
            return b"language"
        if not _compare_digest(asked[2], self._key):
            return b"key"
        if asked[0] == b"who":
            return b"nothing" if at_an_end or mover.worker >= 0 or not mover.can_change_hands() else b""
        name, epoch, memo = mover.run
        if at_an_end or not mover.can_change_hands() or asked[3] != name:
            return b"nothing"
        if int(asked[4]) <= epoch:
            return b"late"
        mover.run = (name, int(asked[4]), memo)
        return b""


def peer(caller: _socket.socket) -> tuple[int, int]:
    """Return the number and the user of the process at the other end, from the kernel."""
    told = caller.getsockopt(_SOL_SOCKET, _SO_PEERCRED, 12)
    return int.from_bytes(told[:4], "little"), int.from_bytes(told[4:8], "little")


def _let_in(caller: _socket.socket, pid: int, mover: Mover) -> Caller:
    ours, theirs = _socket.socketpair()
    memo, said = mover.run[2], mover.spool.all_said()
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, theirs.fileno().to_bytes(4, "little"))]
    caller.sendmsg([b"taken %d %d\n" % (len(memo), len(said))], rights)
    theirs.close()
    caller.sendall(memo + said)
    caller.settimeout(None)
    return Caller(pid, caller.detach(), ours.detach())
