"""Runs a bot's MCP servers outside the CLI's walls, inside walls of their own. Started by the shim; standard library only.

    python -I -S mcp_host.py <specification> -- <command…>

The secrets of a server are variables of its process, so it must not be among the processes that the bot's tools can see. Two
processes come of this program: one becomes the command (the CLI in its sandbox, which finds a socket file for every server there),
the other starts a server when the CLI connects to its socket. It does so once: the CLI connects before it has its first prompt, and
what connects later would be a tool that goes around the judge. Secrets arrive in a pipe whose number stands in FLEET_MCP_PIPE.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

PIPE = "FLEET_MCP_PIPE"


def main() -> None:
    """Split in two."""
    specification, _, *command = sys.argv[1:]
    secrets = int(os.environ.pop(PIPE))
    servers = json.loads(specification)
    sockets = [listening(server["socket"]) for server in servers]
    if os.fork() == 0:
        host(servers, sockets, read(secrets))
        os._exit(0)
    os.close(secrets)
    for opened in sockets:
        opened.close()
    os.execv(command[0], command)  # noqa: S606 - no shell


def listening(path: str) -> socket.socket:
    """Return a socket on which a server is to be had."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.bind(path)
    opened.listen(8)
    return opened


def read(descriptor: int) -> dict[str, dict[str, str]]:
    """Read the secrets of all servers, by the servers' names."""
    with os.fdopen(descriptor, "rb") as pipe:
        secrets: dict[str, dict[str, str]] = json.loads(pipe.read())
        return secrets


def host(servers: list[dict[str, Any]], sockets: list[socket.socket], secrets: dict[str, dict[str, str]]) -> None:
    """Start servers until the sandbox is over."""
    import select

    let_go(keep={opened.fileno() for opened in sockets})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # servers that end are collected by the kernel
    sandbox = os.pidfd_open(os.getppid())
    waiting = dict(zip(sockets, servers, strict=True))
    while waiting:
        ready, _, _ = select.select([sandbox, *(opened.fileno() for opened in waiting)], [], [])
        if sandbox in ready:
            return
        for opened in [opened for opened in waiting if opened.fileno() in ready]:
            server = waiting.pop(opened)
            start(server, opened, secrets.get(server["name"], {}))
            opened.close()
            os.unlink(server["socket"])  # noqa: PTH108 - importing pathlib doubles the time to start


def let_go(*, keep: set[int]) -> None:
    """Keep nothing of the CLI's: neither its streams nor the pipes with its secrets."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for descriptor in range(3, 1024):
        if descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                continue


def start(server: dict[str, Any], opened: socket.socket, secrets: dict[str, str]) -> None:
    """Start a server that speaks with whoever has connected."""
    connection, _ = opened.accept()
    if os.fork() == 0:
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(connection.fileno(), 0)
            os.dup2(connection.fileno(), 1)
            os.chdir(server["cwd"])
            os.execve(server["argv"][0], server["argv"], {**server["environment"], **secrets})  # noqa: S606 - no shell
        finally:
            os._exit(127)
    connection.close()


if __name__ == "__main__":
    main()
