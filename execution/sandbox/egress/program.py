"""`python -I -c "from egress.program import main; main()"`: run by a shim (execution.shim.network), before there is a sandbox.

Over descriptor 3 it is handed the port to listen on and what it lets through; when that ends, so does it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - with which names are looked up; the first request would wait 3 ms for these two
import encodings.idna  # noqa: F401
import json
import os
import socket
import sys
from typing import Any

from .notes import RefusalLog, TroubleNote
from .proxy import Egress
from .reaching import Ways
from .rules import Rule

CONTROL = 3


def main() -> None:
    """Wait for something to do, and do it. What is imported above is loaded by then."""
    with socket.socket(fileno=CONTROL) as control:
        length, descriptors, _, _ = socket.recv_fds(control, 4, 1)
        if not descriptors:
            return  # no sandbox came to be
        specification = json.loads(_exactly(control, int.from_bytes(length, "big")))
        asyncio.run(serve(specification, socket.socket(fileno=descriptors[0]), until=control))


async def serve(specification: dict[str, Any], listening: socket.socket, *, until: socket.socket) -> None:
    """Serve until the shim lets go."""
    over = asyncio.Event()
    rules = [Rule(*fields) for fields in specification["rules"]]
    log = RefusalLog(specification["log"], specification["bot"])
    trouble = TroubleNote(specification["trouble"], rules[0].host, rules[0].port or 0) if rules else None
    egress = Egress(Ways(rules, specification["proxy"]), [log, *([trouble] if trouble else [])])
    asyncio.get_running_loop().add_reader(until, over.set)
    async with await asyncio.start_server(egress.serve, sock=listening):
        await over.wait()
        os._exit(0)  # connections that are still open are of nobody's interest


def _exactly(control: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        piece = control.recv(count - len(received))
        if not piece:
            sys.exit(0)
        received += piece
    return received
