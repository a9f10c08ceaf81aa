"""Where ports meet adapters: the only place that knows both sides."""

from __future__ import annotations

from collections.abc import Iterator

from governance.ports import register_stop_target


def connect() -> None:
    """Connect every app with what it needs from outside. Called once, when Django is ready."""
    register_stop_target("process", _processes)
    register_stop_target("queue", _queued_turns)
    register_stop_target("channel", _gateway_accounts)


def _processes(scope: str, scope_id: str) -> Iterator[str]:
    """Yield what works and what only stands by: the executions and idle processes a kill order of this scope must silence."""
    from execution import queries

    yield from (str(identifier) for identifier in queries.live_ids(scope=scope, scope_id=scope_id))
    yield from queries.idle_subjects(scope=scope, scope_id=scope_id)


def _queued_turns(scope: str, scope_id: str) -> Iterator[str]:
    """Yield the waiting turns a kill order of this scope must silence."""
    from conversations import queries

    yield from (str(identifier) for identifier in queries.queued_ids(scope=scope, scope_id=scope_id))


def _gateway_accounts(scope: str, scope_id: str) -> Iterator[str]:
    """Yield the channels a kill order of this scope must silence."""
    from gateways import queries

    yield from queries.keys_in_scope(scope=scope, scope_id=scope_id)
