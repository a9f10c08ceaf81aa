"""Whom a bot may reach, by name and by address. What a name means is looked up by the proxy; what comes back is judged here."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

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


def may_reach(rules: Sequence[Rule], text: str) -> bool:
    """Return whether one of these rules lets the bot reach this address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    found = [rule for rule in rules if rule.lets_reach(address)]
    return any(rule.spells_out(address) for rule in found) or (bool(found) and not _is_ours(address))


def _is_ours(address: Address) -> bool:
    """Return whether this machine has the address now: its ports are open there as on its loopback."""
    import psutil  # 15 ms that a bot without further destinations never needs

    real = str(_unwrapped(address))
    return any(real == entry.address.partition("%")[0] for found in psutil.net_if_addrs().values() for entry in found)
