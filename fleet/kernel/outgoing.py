"""The company's own way out: the proxy that Fleet's environment names, as programs of a bot's get to use it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed does not know it

_SCHEMES = ("http", "https")


class BadProxy(ValueError):
    """The environment names a proxy that cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`https` is the proxy for tunnels and `http` the one for plain requests, as `http[s]://[user:password@]host[:port]`; empty: none.

    `direct` are the destinations that are reached without it, `authorities` is a file of certificates it may be known by.
    """

    https: str = field(default="", repr=False)
    http: str = field(default="", repr=False)
    direct: str = ""
    authorities: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Outgoing:
        """Read the usual variables, the small ones first as everybody does. Raises BadProxy."""

        def named(name: str) -> str:
            return environment.get(name.lower()) or environment.get(name) or ""

        authorities = environment.get("SSL_CERT_FILE") or environment.get("NODE_EXTRA_CA_CERTS") or ""
        https, http = (_checked(name, named(name)) for name in ("HTTPS_PROXY", "HTTP_PROXY"))
        return cls(https, http, named("NO_PROXY"), authorities)

    def told(self) -> dict[str, Any]:
        """Return it as JSON for a sandbox's proxy, which alone is told the password (execution.sandbox.egress.reaching.Ways)."""
        parents = {scheme: _parent(url) for scheme, url in (("https", self.https), ("http", self.http)) if url}
        return {**parents, "no": self.direct, "ca": self.authorities}

    def secrets(self) -> list[str]:
        """Return what no log may show: user and password in every way they are written."""
        return [text for url in (self.https, self.http) for text in _written(url)]

    def keeps_from(self, address: str) -> bool:
        """Return whether this address is reached only by saying a password, which no bot may see."""
        url = urlsplit(address)
        proxy = self.http if url.scheme == "http" else self.https
        place = f"{url.hostname}:{url.port or (80 if url.scheme == 'http' else 443)}"
        return bool(_known(proxy)) and not proxy_bypass_environment(place, {"no": self.direct})


def has_password(url: str) -> bool:
    """Return whether a variable that names a proxy has a name or a password in it, also one that has not been checked yet."""
    return "@" in url


def _checked(variable: str, url: str) -> str:
    if not url:
        return ""
    url = url if "://" in url else f"http://{url}"
    parts = urlsplit(url)
    try:
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise BadProxy(
            f"{variable} names no proxy that Fleet can use. It has to be http://host:port or https://host:port, with "
            "user:password@ before the host if it asks for them."
        )
    return url


def _parent(url: str) -> dict[str, Any]:
    """Return a proxy as the fields of execution.sandbox.egress.reaching.Parent."""
    parts, known = urlsplit(url), _known(url)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return {"host": parts.hostname, "port": port, "tls": tls, "credentials": f"Basic {known}" if known else ""}


def _known(url: str) -> str:
    """Return name and password as HTTP's Basic scheme writes them (RFC 7617), empty where the proxy asks for none."""
    parts = urlsplit(url)
    if not has_password(parts.netloc):
        return ""
    return base64.b64encode(f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()).decode()


def _written(url: str) -> list[str]:
    parts, known = urlsplit(url), _known(url)
    if not known:
        return []
    raw = parts.netloc.rpartition("@")[0]
    return [f"{raw}@", known, *([unquote(parts.password), parts.password] if parts.password else [])]
