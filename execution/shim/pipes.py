"""The pipes of a CLI that a shim runs: JSON messages, one a line, with a bound on what is read."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from execution.shim.handle import Shim
from fleet.kernel.masking import mask

LONGEST_LINE = 16 * 1024 * 1024
MOST_NOISE = 64 * 1024  # bytes on stdout that are no JSON, before we conclude that this is not the CLI we know
_STDERR_KEPT = 4096


class Unintelligible(Exception):
    """What came out of the CLI is not its protocol."""


class Ended(Exception):
    """The CLI closed its output."""


class Pipes:
    """Speaks with a CLI that a shim runs. Every await is bounded by the end of the process, which the shim guarantees."""

    def __init__(self) -> None:
        self._shim: Shim
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._input_ended = False
        self._transports: list[asyncio.BaseTransport] = []
        self._errors: deque[bytes] = deque(maxlen=32)
        self._listening: asyncio.Task[None] | None = None

    @property
    def stderr(self) -> str:
        """Return the end of what the CLI wrote to stderr, without secrets."""
        return mask(b"".join(self._errors)[-_STDERR_KEPT:].decode(errors="replace")).strip()

    def attach(self, shim: Shim) -> None:
        """Say which shim runs the CLI; before `connect`."""
        self._shim = shim

    async def connect(self) -> None:
        """Attach to the pipes; the shim has started the CLI already."""
        loop = asyncio.get_running_loop()
        stdin, stdout, stderr = self._shim.take_streams()
        self._reader = await self._read_from(stdout, limit=LONGEST_LINE)
        errors = await self._read_from(stderr, limit=_STDERR_KEPT)
        sink = os.fdopen(stdin, "wb", buffering=0)
        transport, protocol = await loop.connect_write_pipe(lambda: asyncio.streams.FlowControlMixin(loop), sink)
        self._transports.append(transport)
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)
        self._listening = loop.create_task(self._keep_errors(errors))

    async def _read_from(self, descriptor: int, *, limit: int) -> asyncio.StreamReader:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit)
        source = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
        self._transports.append(transport)
        return reader

    async def _keep_errors(self, errors: asyncio.StreamReader) -> None:
        while piece := await errors.read(_STDERR_KEPT):
            self._errors.append(piece)

    async def last_words(self) -> str:
        """Return what a CLI that has ended wrote to stderr at last."""
        if self._listening is not None:
            await asyncio.wait([self._listening], timeout=1)
        return self.stderr

    async def write(self, data: str) -> None:
        """Write one line to the CLI. Raises BrokenPipeError when it does not read any more."""
        if self._writer is None or self._writer.is_closing():
            raise BrokenPipeError("The CLI's input is closed.")
        try:
            self._writer.write(data.encode())
            await self._writer.drain()
        except OSError as error:
            raise BrokenPipeError("The CLI does not read any more.") from error

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the CLI's messages. Raises Unintelligible for endless noise or an endless line.

        Raises Ended when the CLI ends unasked, so that whoever waits for an answer hears of it at once.
        """
        noise = 0
        while line := await self._line():
            if line.lstrip().startswith(b"{"):
                yield _parsed(line)
                continue
            noise += len(line)
            if noise > MOST_NOISE:
                raise Unintelligible("It writes text that is not its protocol.")
        if not self._input_ended:
            raise Ended

    async def _line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return b""  # whatever is left was cut off in the middle
        except asyncio.LimitOverrunError as error:
            raise Unintelligible(f"It wrote a single line of more than {LONGEST_LINE // 1024**2} MB.") from error

    async def end_input(self) -> None:
        """Close the CLI's input, which asks it to end."""
        self._input_ended = True
        if self._writer is not None:
            self._writer.close()

    async def close(self) -> None:
        """Let go of the pipes; the shim ends the process."""
        await self.end_input()
        if self._listening is not None:
            self._listening.cancel()
        for transport in self._transports:
            transport.close()

    def is_ready(self) -> bool:
        """Return whether the CLI's input is open."""
        return self._writer is not None and not self._writer.is_closing()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise Unintelligible("It wrote a message that is no JSON.") from error
    if not isinstance(message, dict):
        raise Unintelligible("It wrote a message that is no object.")
    return message
