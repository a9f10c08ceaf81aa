"""The proxy of one sandbox: CONNECT, and requests to plain addresses, for the bot's destinations alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import h11

from .reaching import PIECE, Unreachable, Way, Ways, check_taken, next_event, until_end
from .rules import Refusal

MOST_CONNECTIONS = 128
_HOP_BY_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authorization"}


class Notes(Protocol):
    """Who hears what became of the connections that were asked for."""

    def reached(self, host: str, port: int) -> None:
        """Hear that there is a connection to this destination."""
        ...

    def failed(self, trouble: Unreachable) -> None:
        """Hear that there is none, since nothing answers."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """Hear that there is none, for a reason of ours."""
        ...


class Egress:
    """Answers the connections of one sandbox. `notes` hear what became of them."""

    def __init__(self, ways: Ways, notes: Sequence[Notes] = ()) -> None:
        self._ways, self._notes = ways, notes
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection: a tunnel, or one request to a plain address."""
        self._open += 1
        try:
            await self._answer(reader, writer)
        except (OSError, EOFError, h11.ProtocolError, TimeoutError):
            pass  # whoever asked sees the closed connection
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = h11.Connection(h11.SERVER, max_incomplete_event_size=PIECE)
        try:
            request = await next_event(client, reader)
            if isinstance(request, h11.Request):
                await self._serve(client, request, reader, writer)
        except Refusal as refusal:
            for note in self._notes:
                note.refused(refusal)
            await _say(client, writer, 403, f"{refusal} An administrator can allow it.")
        except Unreachable as trouble:
            for note in self._notes:
                note.failed(trouble)
            await _say(client, writer, 502, str(trouble))
        except OSError as error:
            if client.our_state is h11.SEND_RESPONSE:
                await _say(client, writer, 502, f"It broke off: {error.strerror or error}.")

    async def _serve(
        self, client: h11.Connection, request: h11.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._open > MOST_CONNECTIONS:
            await _say(client, writer, 503, "Too many connections at once.")
        elif request.method == b"CONNECT":
            await self._tunnel(client, request, reader, writer)
        else:
            await self._forward(client, request, reader, writer)

    async def _tunnel(
        self, client: h11.Connection, request: h11.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = _target(f"//{request.target.decode()}", 443)
        way = await self._ways.connect(host, port)
        self._reached(host, port)
        writer.write((client.send(h11.Response(status_code=200, headers=[])) or b"") + way.early)
        way.writer.write(client.trailing_data[0])
        await asyncio.gather(_pump(reader, way.writer), _pump(way.reader, writer))
        way.writer.close()

    async def _forward(
        self, client: h11.Connection, request: h11.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        url = urlsplit(request.target.decode())
        if url.scheme != "http":
            return await _say(client, writer, 400, "This proxy takes CONNECT and http:// addresses.")
        host, port = _target(request.target.decode(), 80)
        way = await self._ways.connect(host, port, plain=True)
        try:
            server = h11.Connection(h11.CLIENT)
            way.writer.write(server.send(_asked(request, url, way)) or b"")
            async for event in until_end(client, reader):
                way.writer.write(server.send(event) or b"")
                await way.writer.drain()
            async for event in until_end(server, way.reader):
                if isinstance(event, h11.Response):
                    if way.parent is not None:
                        check_taken(way.parent, event.status_code, host, port, plain=True)
                    self._reached(host, port)
                    event = h11.Response(
                        status_code=event.status_code, reason=event.reason, headers=_passed_on(event.headers)
                    )
                writer.write(client.send(event) or b"")
                await writer.drain()
        finally:
            way.writer.close()

    def _reached(self, host: str, port: int) -> None:
        for note in self._notes:
            note.reached(host, port)


def _asked(request: h11.Request, url: SplitResult, way: Way) -> h11.Request:
    """Return the request as it is sent on: to its server the path, to the company's proxy all of the address, and who we are."""
    place = url.netloc.rpartition("@")[2]
    path = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
    headers = _asking(place.encode(), request.headers)
    if way.parent is None:
        return h11.Request(method=request.method, target=path, headers=headers)
    target = url._replace(netloc=place, fragment="", path=url.path or "/").geturl()
    return h11.Request(method=request.method, target=target, headers=[*headers, *way.parent.headers])


def _target(address: str, usual: int) -> tuple[str, int]:
    """Return host and port, the host as names are compared. Raises Refusal for what is neither."""
    try:
        url = urlsplit(address)
        host, port = (url.hostname or "").rstrip("."), url.port or usual
        named = host if ":" in host else host.encode("idna").decode()
    except ValueError:
        raise Refusal(address[:100], 0, "that is no address") from None
    return named.lower(), port


def _asking(place: bytes, headers: Any) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request for this place: another name in them would be another destination behind the same address."""
    # Chunks go before a length, but some read the length if it stays.
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in headers)
    left_out = {b"host", b"content-length"} if chunked else {b"host"}
    return [(b"host", place), *((name, value) for name, value in _passed_on(headers) if name.lower() not in left_out)]


def _passed_on(headers: Any) -> list[tuple[bytes, bytes]]:
    """Return the headers for the other side: one request per connection, and nothing that is meant for a proxy."""
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP] + [(b"connection", b"close")]


async def _say(client: h11.Connection, writer: asyncio.StreamWriter, status: int, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
        writer.write(client.send(event) or b"")
    await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on until the end, which is handed on too."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
        else:  # TLS to the company's proxy knows no half of a connection
            writer.close()
