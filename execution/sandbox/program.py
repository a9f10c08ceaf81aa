"""Gives a sandbox a network of its own, whose only way out is our proxy. Started by the shim; standard library only.

    python -I -S -c <this module's main> <python> <the proxy's code> <specification> -- <command…>

Two processes come of it. One stays where it is and becomes the proxy. The other moves into a network that consists of its own
loopback, opens the port where the proxy is to be found there, hands the open port to the proxy, and becomes the command. So nothing
relays inside the sandbox, no socket file is bound into it, and the proxy belongs to the same tree as the CLI: it ends with it.

The command keeps our number, which is the one that the shim watches.
"""

import _socket
import array
import ctypes
import fcntl
import os
import struct
import sys

PORT = 3128  # in the sandbox's own network, where nobody else is
CONTROL = 3  # where the proxy is given its port
MOST_DESCRIPTORS = 1024
POLITE = 19
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
CANNOT = 126

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Split in two."""
    python, egress, specification, _, *command = sys.argv[1:]
    uid, gid = os.getuid(), os.getgid()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    if os.fork() == 0:
        ours.close()
        become_proxy(theirs.detach(), [python, "-I", "-c", egress, specification])
    theirs.close()
    try:
        enter_network(uid, gid)
        hand_over(ours, listener())
    except OSError as error:
        os.write(2, f"The sandbox gets no network of its own: {error.strerror}.\n".encode())
        os._exit(CANNOT)
    os.execv(command[0], command)  # noqa: S606 - no shell


def become_proxy(control: int, argv: list[str]) -> None:
    """Keep nothing of the CLI's: neither its streams nor the pipes with its secrets."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.dup2(control, CONTROL)
    os.set_inheritable(CONTROL, True)
    os.closerange(CONTROL + 1, MOST_DESCRIPTORS)
    os.nice(POLITE)  # it loads while the CLI starts, and has time until the CLI's first request
    os.execv(argv[0], argv)  # noqa: S606 - no shell


def enter_network(uid: int, gid: int) -> None:
    """Leave the machine's network for an empty one. Raises OSError where the kernel forbids it."""
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - importing pathlib doubles the time to start
            file.write(text)


def listener() -> _socket.socket:
    """Return the port on the loopback, which has to be switched on first."""
    opened = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    request = struct.pack("16sh14x", b"lo", 0)
    flags = struct.unpack("16sh14x", fcntl.ioctl(opened.fileno(), SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(opened.fileno(), SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    opened.bind(("127.0.0.1", PORT))
    opened.listen(128)
    return opened


def hand_over(control: _socket.socket, opened: _socket.socket) -> None:
    """Send the open port, and keep no copy."""
    rights = array.array("i", [opened.fileno()])
    control.sendmsg([b"port"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    opened.close()
    control.close()
