"""The shim: a small process between a worker and the CLI of one run. Started as `python -I -S program.py <fd>`; standard library only.

Its stdin, stdout and stderr are the CLI's and are handed on. The file descriptor it is given is a socket to the worker:

    worker → shim   one frame (length, NUL-separated): cwd, number of arguments, arguments…, number of secrets, NAME=secret…,
                    NAME=value…; then lines: `stop <grace seconds>`
    shim → worker   lines: `started <pid>`, `exited <status>`, `gone`; `failed <errno>` when the CLI cannot be started

A secret reaches the CLI through a pipe that nobody else inherits: NAME holds the number of the end to read. A variable would stay
readable in /proc for as long as the CLI lives; a pipe that was read to its end is empty.

It is a child subreaper, so that every descendant that loses its parent becomes its own child: when the kernel says that it has no
child left, the whole tree is gone, whatever the tree did with sessions and process groups. The worker's death shows at once as the
end of the socket, and once more by a pidfd; then the tree dies too.
"""

import ctypes
import os
import select
import sys
import time

CONTROL = int(sys.argv[1])
TERM, KILL, E2BIG = 15, 9, 7  # importing signal, errno, contextlib or subprocess would double the time to start
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
SMALLEST_PIPE = 4096  # what a pipe holds even for a user who has too many of them
LAST_GRACE_SECONDS = 0.5  # when nobody is left to ask for more

_prctl = ctypes.CDLL(None).prctl


def main() -> None:
    """Run one CLI to its end, and everything it left behind."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_DUMPABLE, 0)  # no other process of this user looks into our memory or takes our descriptors
    worker = os.getppid()
    try:
        cli = start(*receive_start())
    except OSError as error:
        say(f"failed {error.errno}")
        return
    say(f"started {cli}")
    let_go_of_streams()
    grace = watch(cli, worker)
    end_tree(cli, grace)
    say("gone")


def receive_start() -> tuple[bytes, list[bytes], dict[bytes, bytes], dict[bytes, bytes]]:
    """Read what to start. Nothing of it was ever in our own arguments or environment."""
    length = int.from_bytes(receive_exactly(8), "big")
    cwd, *rest = receive_exactly(length).split(b"\0")
    arguments, rest = counted(rest)
    secrets, variables = counted(rest)
    return cwd, arguments, pairs(secrets), pairs(variables)


def counted(fields: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Split off the list whose length comes first."""
    end = 1 + int(fields[0])
    return fields[1:end], fields[end:]


def pairs(entries: list[bytes]) -> dict[bytes, bytes]:
    """Read NAME=value."""
    return {name: value for name, _, value in (entry.partition(b"=") for entry in entries)}


def receive_exactly(count: int) -> bytes:
    """Read so many bytes; leave when the worker goes away before it has said what to do."""
    received = b""
    while len(received) < count:
        piece = os.read(CONTROL, count - len(received))
        if not piece:
            sys.exit(0)
        received += piece
    return received


def start(cwd: bytes, argv: list[bytes], secrets: dict[bytes, bytes], environment: dict[bytes, bytes]) -> int:
    """Start the CLI in a session of its own; it dies with us even if we are killed. Raises OSError as exec does."""
    report, reported = os.pipe()
    readable = {name: pipe_with(secret) for name, secret in secrets.items()}
    environment = environment | {name: b"%d" % end for name, end in readable.items()}
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            _prctl(PR_SET_PDEATHSIG, KILL)
            os.chdir(cwd)
            os.close(CONTROL)
            for end in readable.values():
                os.set_inheritable(end, True)  # here, after the fork: only this program gets it
            os.execve(argv[0], argv, environment)  # noqa: S606 - no shell
        except OSError as error:
            os.write(reported, str(error.errno).encode())
        finally:
            os._exit(127)
    for end in (reported, *readable.values()):
        os.close(end)  # the other end of the report closes itself when the exec succeeds
    trouble = os.read(report, 16)
    os.close(report)
    if trouble:
        os.waitpid(pid, 0)
        raise OSError(int(trouble), os.strerror(int(trouble)))
    return pid


def pipe_with(secret: bytes) -> int:
    """Return the end to read of a pipe that holds the secret and then ends."""
    if len(secret) > SMALLEST_PIPE:
        raise OSError(E2BIG, "secret too long")  # writing would wait for a reader that is not there yet
    reading, writing = os.pipe()
    os.write(writing, secret)
    os.close(writing)
    return reading


def let_go_of_streams() -> None:
    """Close our copies of the CLI's streams, or their ends would never be seen."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def watch(cli: int, worker: int) -> float:
    """Wait until the CLI has ended, the worker asks to stop, or the worker is gone; return the grace its tree gets."""
    poll = select.poll()
    cli_end, worker_end = os.pidfd_open(cli), pidfd_of_parent(worker)
    for descriptor in (CONTROL, cli_end, worker_end):
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(1000)}
        if cli_end in ready:
            reap(cli)
            return LAST_GRACE_SECONDS
        if CONTROL in ready:
            return requested_grace()
        if worker_end in ready:
            return LAST_GRACE_SECONDS
        reap(cli)  # strangers that became our children


def pidfd_of_parent(worker: int) -> int | None:
    """Return a descriptor that tells of the worker's death; None when it died before we could ask."""
    try:
        descriptor = os.pidfd_open(worker)
    except ProcessLookupError:
        return None
    if os.getppid() == worker:
        return descriptor
    os.close(descriptor)  # that number belongs to somebody else by now
    return None


def requested_grace() -> float:
    """Return the seconds between SIGTERM and SIGKILL that the worker asks for; a closed socket asks for little."""
    try:
        return float(os.read(CONTROL, 64).split()[1])
    except (OSError, IndexError, ValueError):
        return LAST_GRACE_SECONDS


def end_tree(cli: int, grace: float) -> None:
    """End every descendant: politely, then by force, until the kernel says that none is left."""
    patience = time.monotonic() + grace
    if reap(cli):
        send(TERM)
    while reap(cli):
        if time.monotonic() >= patience:
            send(KILL)
        time.sleep(0.005)


def send(number: int) -> None:
    """Signal every descendant. One that is born meanwhile is met in the next round."""
    for pid in descendants():
        try:
            os.kill(pid, number)
        except OSError:
            continue


def descendants() -> list[int]:
    """Return the processes below us, the nearest first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - importing pathlib doubles the time to start
        if not name.isdigit():
            continue
        try:
            children.setdefault(parent_of(int(name)), []).append(int(name))
        except OSError:
            continue
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def parent_of(pid: int) -> int:
    """Return a process's parent, from /proc/<pid>/stat."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - likewise
        return int(file.read().rpartition(b")")[2].split()[1])


def reap(cli: int) -> bool:
    """Collect children that have ended, telling of the CLI's own end; False when no child is left at all."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if pid == cli:
            say(f"exited {os.waitstatus_to_exitcode(status)}")


def say(line: str) -> None:
    """Tell the worker, if it is still there."""
    try:
        os.write(CONTROL, line.encode() + b"\n")
    except OSError:
        pass


if __name__ == "__main__":
    main()
