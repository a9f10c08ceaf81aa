"""How a shim starts its CLI: in a session of its own, with these descriptors and variables and no more. Standard library only.

A secret reaches the CLI through a pipe that nobody else inherits: NAME holds the number of the end to read. A variable would stay
readable in /proc for as long as the CLI lives; a pipe that was read to its end is empty.
"""

import ctypes
import os
from _collections_abc import Callable

from execution.shim.moving import Cli

KILL, E2BIG = 9, 7  # importing signal or errno would double the time to start
PR_SET_PDEATHSIG = 1
SMALLEST_PIPE = 4096  # what a pipe holds even for a user who has too many of them

prctl = ctypes.CDLL(None).prctl


class Order:
    """What to run. Nothing of it was ever in our own arguments or environment.

    Fields: directory of our door (empty: none), name of our door, key to it, seconds we wait for another worker, bytes of the spool,
    directory to remove at the end (empty: none), whom the proxy of its own network lets through (empty: the machine's network), the
    CLI's directory, number of arguments, arguments…, number of secrets, NAME=secret…, NAME=value…
    """

    def __init__(self, frame: bytes) -> None:
        self.place, self.name, self.key, patience, most, self.scratch, self.network, self.cwd, *rest = frame.split(
            b"\0"
        )
        self.patience, self.most = float(patience), int(most)
        self.argv, rest = counted(rest)
        secrets, variables = counted(rest)
        self.secrets, self.environment = pairs(secrets), pairs(variables)


def counted(fields: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Split off the list whose length comes first."""
    end = 1 + int(fields[0])
    return fields[1:end], fields[end:]


def pairs(entries: list[bytes]) -> dict[bytes, bytes]:
    """Read NAME=value."""
    return {name: value for name, _, value in (entry.partition(b"=") for entry in entries)}


def start(order: Order, ours: tuple[int, ...], enter: Callable[[], None]) -> Cli:
    """Start the CLI in a session of its own; it dies with us even if we are killed. Raises OSError as exec does.

    `enter` is called in the child that becomes the CLI: it may move it into another network.
    """
    report, reported = os.pipe()
    readable = {name: pipe_with(secret) for name, secret in order.secrets.items()}
    (stdin, told), (told_out, stdout), (told_err, stderr) = os.pipe(), os.pipe(), os.pipe()
    environment = order.environment | {name: b"%d" % end for name, end in readable.items()}
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            enter()
            prctl(PR_SET_PDEATHSIG, KILL)
            os.chdir(order.cwd)
            for number, end in enumerate((stdin, stdout, stderr)):
                os.dup2(end, number)
            for end in ours:
                os.close(end)
            for end in readable.values():
                os.set_inheritable(end, True)  # here, after the fork: only this program gets it
            os.execve(order.argv[0], order.argv, environment)  # noqa: S606 - no shell
        except OSError as error:
            os.write(reported, str(error.errno).encode())
        finally:
            os._exit(127)
    for end in (reported, stdin, stdout, stderr, *readable.values()):
        os.close(end)  # the other end of the report closes itself when the exec succeeds
    trouble = os.read(report, 16)
    os.close(report)
    if trouble:
        os.waitpid(pid, 0)
        raise OSError(int(trouble), os.strerror(int(trouble)))
    return Cli(pid, told, told_out, told_err)


def pipe_with(secret: bytes) -> int:
    """Return the end to read of a pipe that holds the secret and then ends."""
    if len(secret) > SMALLEST_PIPE:
        raise OSError(E2BIG, "secret too long")  # writing would wait for a reader that is not there yet
    reading, writing = os.pipe()
    os.write(writing, secret)
    os.close(writing)
    return reading
