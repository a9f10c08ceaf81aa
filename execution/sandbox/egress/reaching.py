"""From an allowed name to a connection: straight to a checked address, or through the company's own proxy.

A name is looked up here, every address that comes back is checked, and the connection goes to a checked address: what a name means
later does not matter. Through the company's proxy it is that one which looks names up; what we can look up is checked all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import h11

from .rules import Refusal, Rule, may_reach

CONNECT_SECONDS = 10.0
LOOKUP_SECONDS = 2.0  # for a name that the company's proxy will look up itself
PIECE = 64 * 1024
_OUR_OWN = ("localhost", "127.0.0.1", "::1")
_PROXY_ASKS_WHO_WE_ARE = 407
Header = tuple[bytes, bytes]


class Unreachable(Exception):
    """Nothing answers there. `kind` is name, refused, silent, network, tls or proxy; `why` is for a person."""

    def __init__(self, host: str, port: int, kind: str, why: str) -> None:
        super().__init__(f"{host}:{port} could not be reached: {why}.")
        self.host, self.port, self.kind, self.why = host, port, kind, why


class Way(NamedTuple):
    """A connection to a destination, or to the proxy that hands on to it: then a plain request names all of its address."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    early: bytes = b""  # what came before anybody asked
    parent: Parent | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """The company's proxy (fleet.kernel.outgoing): `credentials` is the header that it wants to see, never anything else's."""

    host: str
    port: int
    tls: bool = False
    credentials: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """Return how it is told of."""
        return f"the company's proxy {self.host}:{self.port}"

    @property
    def headers(self) -> list[Header]:
        """Return what it is told with each request."""
        return [(b"proxy-authorization", self.credentials.encode())] if self.credentials else []


class Ways:
    """How destinations are reached. `specification` has proxies for `https` and `http`, the list `no` and the file `ca`, all optional."""

    def __init__(self, rules: Sequence[Rule], specification: Mapping[str, Any] | None = None) -> None:
        told = specification or {}
        self._rules = rules
        self._parents = {scheme: Parent(**told[scheme]) for scheme in ("https", "http") if told.get(scheme)}
        self._not_through, self._authorities = told.get("no", ""), told.get("ca", "")

    async def connect(self, host: str, port: int, *, plain: bool = False) -> Way:
        """Connect to a checked destination; `plain` for a request that is no tunnel. Raises Refusal or Unreachable."""
        rules = [rule for rule in self._rules if rule.names(host, port)]
        if not rules:
            raise Refusal(host, port, "it is not among the bot's destinations")
        parent = self._parent_for(host, port, "http" if plain else "https")
        with _explained(host, port):
            if parent is None:
                return await self._straight(rules, host, port)
        await self._check_what_is_known(rules, host, port)
        return await self._through(parent, host, port, plain=plain)

    def _parent_for(self, host: str, port: int, scheme: str) -> Parent | None:
        parent = self._parents.get(scheme)
        if parent is None or host in _OUR_OWN:
            return None
        from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # 30 ms that not everybody needs

        return None if proxy_bypass_environment(f"{host}:{port}", {"no": self._not_through}) else parent

    async def _straight(self, rules: Sequence[Rule], host: str, port: int) -> Way:
        async with asyncio.timeout(CONNECT_SECONDS):
            addresses = await _looked_up(host, port)
        return Way(*await _first_that_answers(_checked(rules, host, port, addresses), port))

    async def _check_what_is_known(self, rules: Sequence[Rule], host: str, port: int) -> None:
        """Raise Refusal for a name that means something forbidden here; one that means nothing here is the proxy's to look up."""
        if any(rule.anywhere for rule in rules):
            return
        with contextlib.suppress(OSError):  # a TimeoutError is one
            async with asyncio.timeout(LOOKUP_SECONDS):
                addresses = await _looked_up(host, port)
            _checked(rules, host, port, addresses)

    async def _through(self, parent: Parent, host: str, port: int, *, plain: bool) -> Way:
        with _explained(host, port, parent):
            async with asyncio.timeout(CONNECT_SECONDS):
                tls = self._trust() if parent.tls else None
                reader, writer = await asyncio.open_connection(parent.host, parent.port, ssl=tls)
        way = Way(reader, writer, parent=parent)
        if plain:
            return way
        try:
            with _explained(host, port, parent):
                async with asyncio.timeout(CONNECT_SECONDS):
                    return way._replace(early=await _tunnel(way, parent, host, port), parent=None)
        except BaseException:
            writer.close()
            raise

    def _trust(self) -> Any:
        import ssl

        context = ssl.create_default_context()
        if self._authorities:
            context.load_verify_locations(self._authorities)
        return context


async def _tunnel(way: Way, parent: Parent, host: str, port: int) -> bytes:
    """Have the proxy connect with the destination; return what came through by then. Raises Unreachable."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=PIECE)
    headers = [(b"host", place.encode()), *parent.headers]
    way.writer.write(client.send(h11.Request(method="CONNECT", target=place, headers=headers)) or b"")
    way.writer.write(client.send(h11.EndOfMessage()) or b"")
    async for event in until_end(client, way.reader):
        if isinstance(event, h11.Response):
            check_taken(parent, event.status_code, host, port)
            if event.status_code < 300:
                return client.trailing_data[0]
            break
    raise Unreachable(host, port, "proxy", f"{parent.name} said nothing that makes sense")


def check_taken(parent: Parent, status: int, host: str, port: int, *, plain: bool = False) -> None:
    """Raise Unreachable when this answer is the proxy's own refusal; of a plain request all but one may be the destination's."""
    if status == _PROXY_ASKS_WHO_WE_ARE:
        why = f"{parent.name} does not accept our name and password (407), which stand in HTTPS_PROXY or HTTP_PROXY"
    elif plain or status < 300:
        return
    elif status in (401, 403):
        why = f"{parent.name} does not let us through to it ({status})"
    else:
        why = f"{parent.name} could not connect to it ({status})"
    raise Unreachable(host, port, "proxy", why)


def _checked(rules: Sequence[Rule], host: str, port: int, addresses: Sequence[str]) -> list[str]:
    allowed = [text for text in addresses if may_reach(rules, text)]
    if not allowed:
        raise Refusal(host, port, f"its address {addresses[0]} is inside of a network that it must not see")
    return allowed


async def _looked_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@contextlib.contextmanager
def _explained(host: str, port: int, parent: Parent | None = None) -> Any:
    """Turn what the system says into words. Raises Unreachable."""
    try:
        yield
    except OSError as error:
        kind, why = _words(error)
        if parent is not None:
            kind, why = "tls" if kind == "tls" else "proxy", f"{parent.name} cannot be used: {why}"
        raise Unreachable(host, port, kind, why) from error
    except (EOFError, h11.ProtocolError) as error:
        raise Unreachable(
            host, port, "proxy", f"{parent.name if parent else 'it'} said nothing that makes sense"
        ) from error


def _words(error: OSError) -> tuple[str, str]:
    match error:
        case socket.gaierror():
            return "name", f"its name could not be looked up ({error.strerror})"
        case TimeoutError():
            return "silent", f"nothing answered within {CONNECT_SECONDS:.0f} seconds"
        case ConnectionRefusedError():
            return "refused", "the connection was refused"
    if type(error).__module__ == "ssl":
        return "tls", f"its certificate or TLS is not accepted ({getattr(error, 'reason', '') or error})"
    return "network", error.strerror or str(error)


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


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    """Return the next event of a connection, reading as much as it takes."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(PIECE))
    return event


async def until_end(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    """Yield the events of one message, its end included; informational answers are left out."""
    while True:
        event = await next_event(connection, reader)
        if isinstance(event, h11.ConnectionClosed | type(h11.PAUSED)):
            return
        if not isinstance(event, h11.InformationalResponse):
            yield event
        if isinstance(event, h11.EndOfMessage):
            return
