"""One write path: rows are written by actions, and what an action changes stands in the journal.

The actions of an app are read as syntax trees: from each exported action every function it may call is followed, by name.
"""

from __future__ import annotations

import ast
import importlib
from functools import cache

import pytest

from tests.architecture.source import PACKAGES, Function, Module, called_name, dotted, modules

APPS = [app for app in PACKAGES if app != "fleet"]
WRITES = {
    "bulk_create", "bulk_update", "create", "delete", "execute", "get_or_create", "save", "update", "update_or_create",
    "update_returning",
}  # fmt: skip
TELLS_THE_JOURNAL = {"record", "move"}

# Writes that are no change of state, each with its reason.
NOTES = {
    "identities.note_token_used": "when a token was used last, to the minute",
    "budgets.renew": "a lease goes on",
    "execution.beat": "a sign of life, every few seconds",
    "execution.note_held": "what a worker has in memory; its end is told",
    "execution.note_weights": "likewise",
    "execution.pass_on": "who hears of it first; nobody has it yet",
    "execution.note_gone": "a time that completes an ending which the journal has",
    "execution.record_events": "the events are an append-only record of their own",
    "execution.mirror_transcript": "a copy of what the provider wrote",
    "execution.forget_transcripts": "a copy of what the provider wrote, after its time",
    "conversations.delivery_receipt": "one part of a message that is still being sent; its end is told",
    "gateways.note_activity": "when a platform was heard last",
    "gateways.renew_leases": "a lease goes on",
}
# Actions that a part of the system does in its own name.
IN_ITS_OWN_NAME = {
    "identities.use_sign_in_link": "the link says who",
    "budgets.meter": "the meter",
    "budgets.sweep_reservations": "the sweep",
    "execution.bury_dead_workers": "the sweep",
    "execution.silence": "the sweep",
    "execution.sweep": "the sweep",
    "execution.tell_refused_connections": "the proxies of this host",
    "conversations.admit": "admission",
    "conversations.advance": "admission",
    "conversations.process": "intake",
    "conversations.silence": "the kill switch; the order says who",
    "conversations.sweep": "the sweep",
}


@cache
def exported(app: str) -> dict[str, tuple[Function, ...]]:
    """The functions that an app's `actions` offers, with every definition of that name in the package."""
    return {
        name: found
        for name in importlib.import_module(f"{app}.actions").__all__
        if (found := definitions(app).get(name))
    }


@cache
def definitions(app: str) -> dict[str, tuple[Function, ...]]:
    found: dict[str, tuple[Function, ...]] = {}
    for module in modules():
        if module.name.startswith(f"{app}/actions"):
            for name, function in module.functions():
                short = name.rpartition(".")[2]
                found[short] = (*found.get(short, ()), function)
    return found


def reached_from(app: str, name: str) -> set[str]:
    """Every name that the function mentions or calls, directly or through functions of its app's actions."""
    reached, todo = set(), [name]
    while todo:
        for function in definitions(app).get(todo.pop(), ()):
            named = {called_name(node) for node in ast.walk(function) if isinstance(node, ast.Call)}
            named |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
            todo += named - reached
            reached |= named
    return reached


ACTIONS = [(app, name) for app in APPS for name in exported(app)]
WRITING = [(app, name) for app, name in ACTIONS if reached_from(app, name) & WRITES]
TELLING = [(app, name) for app, name in ACTIONS if reached_from(app, name) & TELLS_THE_JOURNAL]


def test_the_actions_were_found() -> None:
    assert ("conversations", "receive") in WRITING
    assert ("governance", "stop") in TELLING


def test_what_an_action_writes_stands_in_the_journal() -> None:
    silent = {f"{app}.{name}" for app, name in WRITING if (app, name) not in TELLING}

    assert silent == set(NOTES)


def test_every_change_says_by_whom() -> None:
    nameless = set()
    for app, name in TELLING:
        for function in exported(app)[name]:
            if "by" not in {argument.arg for argument in function.args.kwonlyargs}:
                nameless.add(f"{app}.{name}")

    assert nameless == set(IN_ITS_OWN_NAME)


@pytest.mark.parametrize("app", PACKAGES)
def test_rows_are_written_by_actions_only(app: str) -> None:
    outside = [module for module in modules() if module.name.startswith(f"{app}/") and not _may_write(module)]

    assert [f"{module.name}:{line}" for module in outside for line in _writing_lines(module)] == []


def _may_write(module: Module) -> bool:
    return "/actions" in module.name or module.name.startswith("fleet/kernel/") or module.path.name == "models.py"


def _writing_lines(module: Module) -> list[int]:
    """Lines that write through a manager, or move a state in an update."""
    lines = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and called_name(node) in WRITES - {"execute"}:
            through_a_manager = ".objects." in f"{dotted(node.func)}."
            moves_a_state = any(keyword.arg == "state" for keyword in node.keywords)
            if through_a_manager or moves_a_state:
                lines.append(node.lineno)
    return lines
