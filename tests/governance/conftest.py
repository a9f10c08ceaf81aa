"""What kill orders find alive in these tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from governance import ports

Alive = Callable[..., None]


@pytest.fixture(autouse=True)
def alive(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """Say what is alive, as `alive(process=["1", "2"], queue=["7"])`; nothing until then."""
    monkeypatch.setattr(ports, "_targets", {})

    def say(**kinds: list[str]) -> None:
        for kind, subjects in kinds.items():
            ports.register_stop_target(kind, lambda scope, scope_id, subjects=subjects: iter(subjects))

    return say
