"""A network of its own for a CLI, whose only way out is a proxy of ours. Standard library only.

It is made before anybody needs it, since a namespace takes milliseconds and a proxy many more: a child enters an empty network, opens
the port on its loopback where the proxy is to be found there, and hands the port and the two namespaces to us before it ends. Another
child becomes the proxy, in the machine's network, and waits. So nothing relays inside of the sandbox, no socket file is bound into it,
and the proxy belongs to the shim's tree. What the proxy lets through it hears when there is a CLI, and it ends with the CLI.
"""

import _socket
import ctypes
import fcntl
import os

from execution.shim.moving import Cli
from execution.shim.starting import KILL, PR_SET_PDEATHSIG, Order, prctl, start

PORT = 3128  # in the CLI's own network, where nobody else is
CONTROL = 3  # where the proxy is given its port, and then what it lets through
PR_SET_DUMPABLE = 4
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
MSG_CMSG_CLOEXEC = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class WayOut:
    """What a shim has ready for a CLI that must not be in the machine's network: nothing when it was given no proxy to start."""

    def __init__(self, proxy: list[bytes]) -> None:
        self._network: Network | None = None
        self._trouble = OSError(1, "no proxy")
        if proxy:
            try:
                self._network = Network(proxy)
            except OSError as error:
                self._trouble = error

    def start(self, order: Order, ours: tuple[int, ...]) -> Cli:
        """Start the CLI in the network that its order names. Raises OSError."""
        if not order.network:
            self.close()
            return start(order, ours, _stay)
        if self._network is None:
            raise self._trouble
        self._network.open(order.network)
        cli = start(order, ours, self._network.enter)
        self._network.forget()
        return cli

    def close(self) -> None:
        """Nobody needs it."""
        if self._network is not None:
            self._network.close()


def _stay() -> None:
    """Stay in the machine's network."""


class Network:
    """The network of one CLI. `enter` belongs to the child that becomes the CLI, the rest to the shim."""

    def __init__(self, proxy: list[bytes]) -> None:
        """Make it, and start this command as its proxy. Raises OSError where the kernel forbids it."""
        self._users, self._net, self._port = _made()
        ours, theirs = _socket.socketpair()
        if os.fork() == 0:
            _become(proxy, theirs.detach())
        theirs.close()
        self._control = ours

    def open(self, specification: bytes) -> None:
        """Tell the proxy whom to let through."""
        self._control.sendmsg([len(specification).to_bytes(4, "big")], _rights(self._port))
        self._control.sendall(specification)

    def enter(self) -> None:
        """Leave the machine's network for this one. Raises OSError."""
        for place, kind in ((self._users, CLONE_NEWUSER), (self._net, CLONE_NEWNET)):
            _check(_libc.setns(place, kind))

    def forget(self) -> None:
        """Let go of what only a starting CLI needs."""
        for end in (self._users, self._net, self._port):
            os.close(end)

    def close(self) -> None:
        """End the proxy: nobody is left who would use it."""
        self._control.close()


def _made() -> list[int]:
    """Return the user and the network namespace and the port, made by a child: what enters them does not come back."""
    ours, theirs = _socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            theirs.sendmsg([b"\0"], _rights(*_inside()))
        except OSError as error:
            theirs.sendall(bytes([error.errno or 1]))
        finally:
            os._exit(0)
    theirs.close()
    trouble, rights, _, _ = ours.recvmsg(1, _socket.CMSG_SPACE(3 * 4), MSG_CMSG_CLOEXEC)
    ours.close()
    os.waitpid(pid, 0)
    if trouble != b"\0" or not rights:
        number = trouble[0] if trouble else 1
        raise OSError(number, os.strerror(number))
    received = rights[0][2]
    return [int.from_bytes(received[at : at + 4], "little") for at in (0, 4, 8)]


def _inside() -> tuple[int, int, int]:
    """Enter an empty network and return it."""
    uid, gid = os.getuid(), os.getgid()
    prctl(PR_SET_DUMPABLE, 1)  # or the files below would be root's; there is no secret in our memory yet
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - importing pathlib doubles the time to start
            file.write(text)
    users, net = (os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("user", "net"))
    return users, net, _listener().detach()


def _listener() -> _socket.socket:
    """Return the port on the loopback, which has to be switched on first."""
    opened = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    request = b"lo".ljust(16, b"\0") + bytes(16)  # struct ifreq: a name, then two bytes of flags
    flags = int.from_bytes(fcntl.ioctl(opened.fileno(), SIOCGIFFLAGS, request)[16:18], "little") | IFF_UP
    fcntl.ioctl(opened.fileno(), SIOCSIFFLAGS, request[:16] + flags.to_bytes(2, "little") + bytes(14))
    opened.bind(("127.0.0.1", PORT))
    opened.listen(128)
    return opened


def _become(proxy: list[bytes], control: int) -> None:
    """Keep nothing of the shim's but this end of a socket, and end when it does."""
    try:
        prctl(PR_SET_PDEATHSIG, KILL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.dup2(control, CONTROL)
        os.set_inheritable(CONTROL, True)  # should it have had this number already
        os.closerange(CONTROL + 1, os.sysconf("SC_OPEN_MAX"))
        os.execve(proxy[0], proxy, {})  # noqa: S606 - no shell
    finally:
        os._exit(127)


def _rights(*descriptors: int) -> list[tuple[int, int, bytes]]:
    packed = b"".join(descriptor.to_bytes(4, "little") for descriptor in descriptors)
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]


def _check(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
