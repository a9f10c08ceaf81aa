"""Which tests stay together when several processes share a run (`-n`), and in which order they are handed out.

A group runs in one process: a file by itself, so that its fixtures are made once, and everything that uses one of the two
installations that take long to start. The whole product is in one group even where a test starts its own: twice at a time
it is slower than twice in turn. xdist's own marks for groups do not reach its scheduler with this pytest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SHARED = {
    "tests/browser/": "browser",
    "tests/journeys/": "product",
    "tests/faults/test_whole_product.py": "product",
    "tests/platform/test_product.py": "product",
}
LONG = ("browser", "stack", "realcli")


class Groups(LoadScopeScheduling):
    """Hands out group after group."""

    def _split_scope(self, nodeid: str) -> str:
        together = (group for start, group in SHARED.items() if nodeid.startswith(start))
        return next(together, nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """Keep groups together, however they were asked for, and in the order of the tests."""
    config.option.loadscopereorder = False
    return Groups(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Begin with what takes long, in a process that shares a run: begun last, it would run on while the others are idle."""
    yield
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not any(map(item.get_closest_marker, LONG)))
