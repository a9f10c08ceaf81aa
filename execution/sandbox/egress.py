"""The only way out of a sandbox: an HTTP proxy that knows one bot's destinations.
Run as `python -I -c <this module's main>` by a shim (execution.shim.network), before there is a sandbox.

Over descriptor 3 it is handed the port to listen on and what it lets through; when that ends, so does it. A name is looked up here,
every address that comes back is checked, and the connection goes to a checked address: what a name means later does not matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h11

CONTROL = 3
CONNECT_SECONDS = 10.0
MOST_CONNECTIONS = 128
MOST_REFUSALS = 20  # told of per sandbox: a bot that tries every host of the world fills no disk
LARGEST_LOG = 64 * 1024
PIECE = 64 * 1024
USUAL_PORTS = (80, 443)
# IPv6 networks whose last 32 bits are an IPv4 address: compatible, translated, and NAT64's two prefixes.
_WITH_IPV4 = [ipaddress.ip_network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")]
# Where clouds keep their credentials although the address is not link-local: Amazon's, Google's, Oracle's, Scaleway's, Azure's, Alibaba's.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        *("fd00:ec2::254", "fd20:ce::254", "192.0.0.192", "fd00:c1::a9fe:a9fe", "fd00:42::42"),
        *("168.63.129.16", "100.100.100.200"),
    )
)
_HOP_BY_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authorization"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Rule:
    """One allowed destination: a host or `*.suffix`, with a port or the usual two; `anywhere`: the address may be this machine."""

    host: str
    port: int | None = None
    anywhere: bool = False

    def names(self, host: str, port: int) -> bool:
        """Return whether this host and port are meant."""
        if port != self.port and (self.port is not None or port not in USUAL_PORTS):
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host

    def spells_out(self, address: Address) -> bool:
        """Return whether the address itself was written down, or may be anything."""
        return self.anywhere or self.host == str(address)

    def lets_reach(self, address: Address) -> bool:
        """Return whether the name may stand for this address.

        A pattern reaches public addresses only. An exact name may be inside the company, but neither on this machine nor where
        clouds keep their metadata, unless the address itself was written down. The machine's other addresses are `_is_ours`'s.
        """
        if self.spells_out(address):
            return True
        real = _unwrapped(address)
        if real in _METADATA or (isinstance(real, ipaddress.IPv6Address) and real.is_site_local):
            return False
        if real.is_global and not real.is_multicast and address.is_global:
            return True
        inside = real.is_private and not (real.is_loopback or real.is_link_local or real.is_unspecified)
        return inside and not self.host.startswith("*.")


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _WITH_IPV4) and int(address) > 1:  # neither :: nor ::1
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Refusal(Exception):
    """This destination is not reached; the text is for whoever reads the answer."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"Fleet does not let this bot reach {host}:{port}: {why}.")
        self.host, self.port, self.why = host, port, why


class Egress:
    """Answers the connections of one sandbox. `refused` is told of every destination that was not reached for a reason of ours."""

    def __init__(self, rules: Sequence[Rule], refused: Callable[[Refusal], None]) -> None:
        self._rules, self._refused = rules, refused
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
            request = await _next(client, reader)
            if not isinstance(request, h11.Request):
                return
            if self._open > MOST_CONNECTIONS:
                return await _say(client, writer, 503, "Too many connections at once.")
            if request.method == b"CONNECT":
                await self._tunnel(client, request, reader, writer)
            else:
                await self._forward(client, request, reader, writer)
        except Refusal as refusal:
            self._refused(refusal)
            await _say(client, writer, 403, f"{refusal} An administrator can allow it.")
        except OSError as error:
            if client.our_state is h11.SEND_RESPONSE:
                await _say(client, writer, 502, f"It could not be reached: {error.strerror or error}.")

    async def _tunnel(
        self, client: h11.Connection, request: h11.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = _target(f"//{request.target.decode()}", 443)
        far_reader, far_writer = await self._connect(host, port)
        writer.write(client.send(h11.Response(status_code=200, headers=[])))
        far_writer.write(client.trailing_data[0])
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        far_writer.close()

    async def _forward(
        self, client: h11.Connection, request: h11.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        url = urlsplit(request.target.decode())
        if url.scheme != "http":
            return await _say(client, writer, 400, "This proxy takes CONNECT and http:// addresses.")
        host, port = _target(request.target.decode(), 80)
        far_reader, far_writer = await self._connect(host, port)
        try:
            server = h11.Connection(h11.CLIENT)
            path = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
            place = url.netloc.rpartition("@")[2].encode()
            asked = h11.Request(method=request.method, target=path, headers=_asking(place, request.headers))
            far_writer.write(server.send(asked) or b"")
            async for event in _until_end(client, reader):
                far_writer.write(server.send(event) or b"")
                await far_writer.drain()
            async for event in _until_end(server, far_reader):
                if isinstance(event, h11.Response):
                    event = h11.Response(
                        status_code=event.status_code, reason=event.reason, headers=_passed_on(event.headers)
                    )
                writer.write(client.send(event) or b"")
                await writer.drain()
        finally:
            far_writer.close()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a checked address of this host. Raises Refusal or OSError."""
        rules = [rule for rule in self._rules if rule.names(host, port)]
        if not rules:
            raise Refusal(host, port, "it is not among the bot's destinations")
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        allowed = [text for text in addresses if _may_reach(rules, text)]
        if not allowed:
            raise Refusal(host, port, f"its address {addresses[0]} is inside of a network that it must not see")
        return await _first_that_answers(allowed, port)


def _may_reach(rules: Sequence[Rule], text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    found = [rule for rule in rules if rule.lets_reach(address)]
    return any(rule.spells_out(address) for rule in found) or (bool(found) and not _is_ours(address))


def _is_ours(address: Address) -> bool:
    """Return whether this machine has the address now: its ports are open there as on its loopback."""
    import psutil  # 15 ms that a bot without further destinations never needs

    real = str(_unwrapped(address))
    return any(real == entry.address.partition("%")[0] for found in psutil.net_if_addrs().values() for entry in found)


async def _first_that_answers(addresses: Sequence[str], port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    error: OSError = OSError("no address")
    for address in addresses:
        try:
            return await connect(address, port)
        except OSError as failure:  # a TimeoutError is one
            error = failure
    raise error


async def connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an address, which is no name any more. Raises OSError."""
    async with asyncio.timeout(CONNECT_SECONDS):
        return await asyncio.open_connection(address, port)


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


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(PIECE))
    return event


async def _until_end(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    """Yield the events of one message, its end included; informational answers are left out."""
    while True:
        event = await _next(connection, reader)
        if isinstance(event, h11.ConnectionClosed | type(h11.PAUSED)):
            return
        if not isinstance(event, h11.InformationalResponse):
            yield event
        if isinstance(event, h11.EndOfMessage):
            return


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
        writer.write_eof()


class RefusalLog:
    """Appends refusals to the file that workers read; every destination once, and not without end."""

    def __init__(self, path: str, bot: str) -> None:
        self._path, self._bot = path, bot
        self._told: set[tuple[str, int]] = set()

    def __call__(self, refusal: Refusal) -> None:
        """Write one line, unless it was written before."""
        place = (refusal.host, refusal.port)
        if place in self._told or len(self._told) >= MOST_REFUSALS:
            return
        self._told.add(place)
        told = {
            "bot": self._bot,
            "host": refusal.host[:253],
            "port": refusal.port,
            "why": refusal.why,
            "at": time.time(),
        }
        with contextlib.suppress(OSError):
            self._append(json.dumps(told) + "\n")

    def _append(self, line: str) -> None:
        with open(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:  # noqa: PTH123 - mode
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size < LARGEST_LOG:
                file.write(line)


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
    egress = Egress(rules, RefusalLog(specification["log"], specification["bot"]))
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
