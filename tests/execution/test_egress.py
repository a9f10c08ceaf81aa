"""Whom a sandbox's proxy lets through. The proxy itself, without a sandbox around it: test_sandbox has both."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.ports import Confinement
from execution.sandbox.egress.notes import TroubleNote
from execution.sandbox.egress.proxy import Egress
from execution.sandbox.egress.reaching import Unreachable, Ways
from execution.sandbox.egress.rules import Refusal, Rule
from execution.sandbox.enclosing import rules
from identities.states import NetworkPolicy

ADDRESSES = st.ip_addresses()
# Where clouds keep their credentials: 169.254.169.254 in all the ways it can be written, and what is not link-local.
METADATA = [
    *("169.254.169.254", "::ffff:169.254.169.254", "::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "2002:a9fe:a9fe::1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "fe80::1", "fec0::1", "fd00:ec2::254", "fd20:ce::254"),
    *("192.0.0.192", "fd00:c1::a9fe:a9fe", "fd00:42::42", "168.63.129.16", "100.100.100.200"),
]


def ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


class TestNames:
    @pytest.mark.parametrize(
        ("rule", "host", "port", "named"),
        [
            (Rule("api.example.com"), "api.example.com", 443, True),
            (Rule("api.example.com"), "api.example.com", 80, True),
            (Rule("api.example.com"), "api.example.com", 22, False),
            (Rule("api.example.com", 8443), "api.example.com", 8443, True),
            (Rule("api.example.com", 8443), "api.example.com", 443, False),
            (Rule("api.example.com"), "evil-api.example.com", 443, False),
            (Rule("api.example.com"), "api.example.com.evil.org", 443, False),
            (Rule("*.example.com"), "a.b.example.com", 443, True),
            (Rule("*.example.com"), "example.com", 443, False),
            (Rule("*.example.com"), "evilexample.com", 443, False),
        ],
    )
    def test_a_host_is_meant_or_not(self, rule: Rule, host: str, port: int, named: bool) -> None:
        assert rule.names(host, port) is named


class TestAddresses:
    @given(address=ADDRESSES)
    def test_a_pattern_reaches_public_addresses_only(self, address) -> None:
        if Rule("*.example.com").lets_reach(address):
            assert address.is_global

    @given(address=ADDRESSES)
    def test_no_name_reaches_this_machine_or_its_neighbours_on_the_link(self, address) -> None:
        if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
            assert not Rule("intranet.example.com").lets_reach(address)

    @pytest.mark.parametrize("address", METADATA)
    def test_no_name_reaches_where_clouds_keep_credentials(self, address: str) -> None:
        assert not Rule("intranet.example.com").lets_reach(ip(address))
        assert not Rule("*.example.com").lets_reach(ip(address))

    @pytest.mark.parametrize(
        "address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "::7f00:1", "64:ff9b:1::7f00:1", "0.0.0.0", "::"]
    )
    def test_no_name_reaches_loopback(self, address: str) -> None:
        assert not Rule("localhost").lets_reach(ip(address))

    def test_an_exact_name_reaches_the_company(self) -> None:
        assert Rule("git.corp.example").lets_reach(ip("10.1.2.3"))
        assert not Rule("*.corp.example").lets_reach(ip("10.1.2.3"))

    @given(address=ADDRESSES)
    def test_an_address_that_is_written_down_is_reached_and_so_is_the_providers(self, address) -> None:
        assert Rule(str(address)).lets_reach(address)
        assert Rule("api.example.com", 443, True).lets_reach(address)


class TestRules:
    def test_the_provider_is_always_among_them_with_its_own_port(self) -> None:
        assert rules(Confinement(), "https://api.example.com/v1") == [("api.example.com", 443, True)]
        assert rules(Confinement(), "http://127.0.0.1:4010") == [("127.0.0.1", 4010, True)]

    def test_a_list_counts_under_its_policy_and_servers_always(self) -> None:
        listed = Confinement(allowed=("*.example.org:8443", "[fd00::1]"), servers=("mcp.example.com",))
        only = [("api.example.com", 443, True), ("mcp.example.com", None, False)]
        assert rules(listed, "https://api.example.com") == only
        opened = Confinement(network=NetworkPolicy.ALLOWLIST, allowed=listed.allowed, servers=listed.servers)
        found = rules(opened, "https://api.example.com")
        assert found[1:3] == [("*.example.org", 8443, False), ("fd00::1", None, False)]


class Heard:
    """What the proxy tells of: destinations by what became of them."""

    def __init__(self) -> None:
        self.reached_ones: list[tuple[str, int]] = []
        self.failures: list[Unreachable] = []
        self.refusals: list[Refusal] = []

    def reached(self, host: str, port: int) -> None:
        self.reached_ones.append((host, port))

    def failed(self, trouble: Unreachable) -> None:
        self.failures.append(trouble)

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)


def egress(*rules: Rule, heard: Heard | None = None, **proxy: Any) -> Egress:
    return Egress(Ways(rules, proxy), [heard or Heard()])


def ask(egress: Egress, request: bytes) -> bytes:
    """Send a request to the proxy and return all that it answers."""

    async def asked() -> bytes:
        async with await asyncio.start_server(egress.serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(request)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return answer

    return asyncio.run(asked())


def names_mean(monkeypatch, *answers: str) -> list[str]:
    """Let every name mean the next of these addresses, and return the names that were looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def looked_up(host, port, *args, **kwargs):
        if not str(host).endswith(".example"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return asked


def test_a_name_that_means_this_machine_is_refused(monkeypatch) -> None:
    heard = Heard()
    names_mean(monkeypatch, "127.0.0.1")
    answer = ask(egress(Rule("turned.example"), heard=heard), b"CONNECT turned.example:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403") and b"must not see" in answer
    assert [(refusal.host, refusal.port) for refusal in heard.refusals] == [("turned.example", 443)]


def test_a_name_is_looked_up_once_so_that_it_cannot_mean_something_else_later(monkeypatch) -> None:
    asked, reached = names_mean(monkeypatch, "10.255.255.1", "127.0.0.1"), []

    async def connect(host: str, port: int):
        reached.append(host)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("execution.sandbox.egress.reaching.connect", connect)
    answer = ask(egress(Rule("turned.example")), b"CONNECT turned.example:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502")
    assert (asked, reached) == (["turned.example"], ["10.255.255.1"])


@pytest.mark.parametrize(
    "target",
    [
        b"evil.example:443",
        b"[::1]:443",
        b"127.1:443",
        b"0x7f000001:443",
        b"user@api.example.com:443",
        b"api.example.com@evil.example:443",
    ],
)
def test_what_is_not_on_the_list_is_refused_however_it_is_written(target: bytes) -> None:
    heard = Heard()
    ask(egress(Rule("api.example.org"), heard=heard), b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert len(heard.refusals) == 1


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1", b"GET https://api.example.org/ HTTP/1.1", b"GET ftp://x/ HTTP/1.1"]
)
def test_what_it_does_not_speak_is_said(request_line: bytes) -> None:
    answer = ask(egress(Rule("api.example.org")), request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_name_that_means_another_address_of_this_machine_is_refused(monkeypatch) -> None:
    """The machine in its company's network, as it calls itself there: its database may listen."""
    ours = SimpleNamespace(address="10.1.2.3")
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"eth0": [ours, SimpleNamespace(address="fe80::1%eth0")]})
    names_mean(monkeypatch, "10.1.2.3")
    request = b"CONNECT me.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"
    assert b"must not see" in ask(egress(Rule("me.example")), request)


def far_side(request: bytes) -> bytes:
    """Return what the server behind an allowed name hears when this is asked of the proxy; PLACE is where it is."""

    async def heard() -> bytes:
        said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said.set_result(await reader.read(65536))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            place = b"127.0.0.1:%d" % port
            await asyncio.to_thread(ask, egress(Rule("127.0.0.1", port)), request.replace(b"PLACE", place))
            return (await said).replace(place, b"PLACE")

    return asyncio.run(heard())


def test_another_host_in_the_request_is_not_asked_for() -> None:
    """Many names may be behind one address; the one that was checked is the one that is asked."""
    heard = far_side(b"GET http://user@PLACE/x HTTP/1.1\r\nHost: admin.example\r\n\r\n")
    assert heard.lower().count(b"host:") == 1 and b"host: PLACE\r\n" in heard and b"admin.example" not in heard


def test_a_body_has_one_length() -> None:
    """A second one is how a request is hidden in another one's body."""
    asked = b"POST http://PLACE/ HTTP/1.1\r\nHost: PLACE\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    heard = far_side(asked).lower()
    assert b"transfer-encoding: chunked" in heard and b"content-length" not in heard


class TestThroughTheCompanysProxy:
    """Nobody listens where it is said to be: what is asked of it ends as its trouble. The way through it: test_company_proxy."""

    def ask(self, name: str, *rules: Rule) -> Heard:
        heard = Heard()
        proxy = egress(*rules, heard=heard, https={"host": "127.0.0.1", "port": 1})
        ask(proxy, f"CONNECT {name}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return heard

    @pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254"])
    def test_a_name_that_means_something_forbidden_here_is_not_asked_of_it(self, monkeypatch, address: str) -> None:
        names_mean(monkeypatch, address)
        heard = self.ask("turned.example", Rule("turned.example"))
        assert [refusal.host for refusal in heard.refusals] == ["turned.example"] and not heard.failures

    def test_a_name_that_means_nothing_here_is_its_to_look_up(self) -> None:
        heard = self.ask("web.nowhere.invalid", Rule("web.nowhere.invalid"))
        assert [failure.kind for failure in heard.failures] == ["proxy"] and not heard.refusals

    def test_the_providers_name_is_not_looked_up_here(self, monkeypatch) -> None:
        asked = names_mean(monkeypatch, "127.0.0.1")
        heard = self.ask("api.example", Rule("api.example", 443, True))
        assert [failure.kind for failure in heard.failures] == ["proxy"] and asked == []


class TestWhatIsNoted:
    """A file that is there for as long as the bot's provider cannot be reached."""

    @pytest.fixture
    def note(self, tmp_path: Path) -> tuple[TroubleNote, Path]:
        return TroubleNote(str(tmp_path / "note"), "api.example", 443), tmp_path / "note"

    def test_it_goes_when_the_provider_is_reached(self, note: tuple[TroubleNote, Path]) -> None:
        notes, file = note
        notes.failed(Unreachable("api.example", 443, "name", "no such name"))
        told = {"host": "api.example", "port": 443, "kind": "name", "why": "no such name"}
        assert json.loads(file.read_text()) == told
        notes.reached("web.example", 443)
        assert file.exists()
        notes.reached("api.example", 443)
        assert not file.exists()

    def test_what_a_tool_does_not_reach_is_no_trouble_of_the_providers(self, note: tuple[TroubleNote, Path]) -> None:
        notes, file = note
        notes.failed(Unreachable("web.example", 443, "name", "no such name"))
        notes.failed(Unreachable("api.example", 80, "name", "no such name"))
        notes.reached("api.example", 443)
        notes.refused(Refusal("evil.example", 443, "it is not among the bot's destinations"))
        assert not file.exists()

    def test_a_refusal_counts_until_the_provider_was_reached(self, note: tuple[TroubleNote, Path]) -> None:
        notes, file = note
        notes.refused(Refusal("elsewhere.example", 443, "it is not among the bot's destinations"))
        assert json.loads(file.read_text())["kind"] == "policy"
        notes.reached("api.example", 443)
        assert not file.exists()
