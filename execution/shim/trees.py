"""The processes below a shim, and the directory they leave behind. Standard library only, and little of it."""

import os


def pidfd_of(pid: int, *, our_parent: bool = False) -> int:
    """Return a descriptor that tells of a process's death; -1 when it died before we could ask."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return -1
    if our_parent and os.getppid() != pid:
        os.close(descriptor)  # that number belongs to somebody else by now
        return -1
    return descriptor


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


def remove(directory: bytes) -> None:
    """Remove the CLI's leavings; whatever cannot be removed stays."""
    if not directory:
        return
    for place, directories, files in os.walk(directory, topdown=False):
        for name in (*files, *directories):
            try:
                os.unlink(place + b"/" + name)  # noqa: PTH108 - likewise
            except OSError:
                pass
        try:
            os.rmdir(place)  # noqa: PTH106
        except OSError:
            pass
