"""Every route of the product, with an address that leads to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLResolver, get_resolver, reverse
from django.urls.resolvers import RegexPattern, RoutePattern

# One value for each name that a route captures. The numbers belong to no row.
_SAMPLES: dict[str, Any] = {
    "slug": "nobody",
    "page": "nowhere",
    "token": "no-such-link",
    "key": "no-such-key",
    "uidb36": "1",
    "app_label": "identities",
    "object_id": "999999",
    "content_type_id": 999999,
    "url": "nowhere",
    "worker_id": "00000000-0000-4000-8000-000000000000",
    "process_id": "00000000-0000-4000-8000-000000000000",
}
_NO_ROW = 999999


@dataclass(frozen=True)
class Route:
    """One pattern: its full name, its view, and an address."""

    name: str
    view: Any
    address: str


def routes() -> Iterator[Route]:
    """Yield every route that the URL resolver knows."""
    yield from _below(get_resolver(), "", "/")


def _below(resolver: URLResolver, namespace: str, prefix: str) -> Iterator[Route]:
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            inner = f"{namespace}{entry.namespace}:" if entry.namespace else namespace
            yield from _below(entry, inner, prefix + str(entry.pattern))
        else:
            # Django knows a route without a name by the path of its view.
            name = namespace + (entry.name or entry.lookup_str)
            yield Route(name, entry.callback, _address(name, entry.pattern, prefix))


def _address(name: str, pattern: RoutePattern | RegexPattern, prefix: str) -> str:
    if isinstance(pattern, RoutePattern):
        return re.sub(r"<(?:\w+:)?(\w+)>", lambda match: str(_SAMPLES.get(match[1], _NO_ROW)), f"{prefix}{pattern}")
    if not pattern.regex.groupindex.keys() - {"url"}:
        return f"{prefix}nowhere"
    return reverse(name, kwargs={key: _SAMPLES.get(key, _NO_ROW) for key in pattern.regex.groupindex})
