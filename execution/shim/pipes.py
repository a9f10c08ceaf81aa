"""What a CLI that a shim runs reads and writes: JSON messages, one a line, with a bound on what is read."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

from execution.shim.handle import Shim

LONGEST_LINE = 16 * 1024 * 1024
MOST_NOISE = 64 * 1024  # bytes on stdout that are no JSON, before we conclude that this is not the CLI we know


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
        self.output_ended = False
        self._run = ""  # whose gate the shim knows to be open
        self.gate_is_told = threading.Event()

    @property
    def stderr(self) -> str:
        """Return the end of what the CLI wrote to stderr, known once it has ended. It may contain secrets."""
        return self._shim.last_words.decode(errors="replace").strip()

    def attach(self, shim: Shim) -> None:
        """Say which shim runs the CLI; before `connect`."""
        self._shim = shim

    async def connect(self) -> None:
        """Attach to the CLI; the shim has started it already."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=self._shim.take_stream(), limit=LONGEST_LINE
        )

    async def open_gate(self, *, run: str, epoch: int, memo: bytes) -> None:
        """Tell the shim that money may flow from here on: should we go away, it keeps what runs for another worker of this run.

        `memo` is what that one has to know.
        """
        await self._send(b"R", b"\0".join([run.encode(), b"%d" % epoch, memo]))
        self._run = run
        self.gate_is_told.set()

    async def settle(self, run: str) -> None:
        """Tell the shim that nothing of this run is left to take over."""
        if run == self._run:  # another one may have begun meanwhile
            self.gate_is_told.clear()
        if self.is_connected():
            await self._send(b"S", run.encode())

    async def write(self, data: str) -> None:
        """Write one line to the CLI. Raises BrokenPipeError when it does not read any more."""
        if self._input_ended:
            raise BrokenPipeError("The CLI's input is closed.")
        await self._send(b"D", data.encode())

    async def end_input(self) -> None:
        """Close the CLI's input, which asks it to end."""
        if not self._input_ended:
            self._input_ended = True
            if self.is_connected():
                await self._send(b"E")

    async def _send(self, kind: bytes, content: bytes = b"") -> None:
        if self._writer is None or self._writer.is_closing():
            raise BrokenPipeError("The CLI's input is closed.")
        try:
            self._writer.write(kind + len(content).to_bytes(4, "big") + content)
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
        except (asyncio.IncompleteReadError, ConnectionResetError):
            self.output_ended = True
            return b""  # whatever is left was cut off in the middle
        except asyncio.LimitOverrunError as error:
            raise Unintelligible(f"It wrote a single line of more than {LONGEST_LINE // 1024**2} MB.") from error

    async def close(self) -> None:
        """Let go of the CLI; the shim ends the process, or keeps it for another worker."""
        if self._writer is not None:
            self._writer.close()

    def is_connected(self) -> bool:
        """Return whether somebody still takes what we say."""
        return self._writer is not None and not self._writer.is_closing()

    def is_ready(self) -> bool:
        """Return whether the CLI's input is open."""
        return self.is_connected() and not self._input_ended


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise Unintelligible("It wrote a message that is no JSON.") from error
    if not isinstance(message, dict):
        raise Unintelligible("It wrote a message that is no object.")
    return message
