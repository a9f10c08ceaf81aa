"""Rules about the source that no linter knows."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator

import pytest

from fleet.celery import app as celery
from tests.architecture.source import ROOT, Function, Module, called_name, dotted, modules

LONGEST_MODULE = 400
LONGEST_FUNCTION = 50

# Each with its reason; a line that is no longer needed fails the test.
LONG: dict[str, str] = {}
READS_THE_ENVIRONMENT = {
    "fleet/settings/base.py": "the settings",
    "fleet/settings/test.py": "decides for tests where `var` is before the settings read it",
    "fleet/platform/installation.py": "decides which servers to start before there are settings",
    "fleet/platform/launch.py": "NO_COLOR",
    "execution/sandbox/mcp_host.py": "a program of its own: it is told there in which pipe the secrets are",
    "manage.py": "names the settings module",
    "fleet/asgi.py": "names the settings module",
    "fleet/management/commands/worker.py": "tells Celery to leave Django's checks out",
}


def test_modules_and_functions_are_short() -> None:
    long = {module.name for module in modules() if module.lines > LONGEST_MODULE}
    for module in modules():
        for name, function in module.functions():
            if body_lines(function) > LONGEST_FUNCTION:
                long.add(f"{module.name}:{name}")

    assert long == set(LONG)


def test_no_link_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert [line for line in listed.splitlines() if line.startswith("120000 ")] == []


def body_lines(function: Function) -> int:
    """Lines of what a function does: its signature and docstring may take the room they need."""
    first, *rest = function.body
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    begin = rest[0].lineno if documented and rest else first.lineno
    return (function.end_lineno or begin) - begin + 1


def test_the_environment_is_read_in_the_settings_only() -> None:
    readers = {module.name for module in modules() if any(_environment(module))}
    product = {name for name in readers if not name.startswith(("bench/", "tools/"))}

    assert product == set(READS_THE_ENVIRONMENT)


def _environment(module: Module) -> Iterator[ast.AST]:
    for node in ast.walk(module.tree):
        if dotted(node) in ("os.environ", "os.getenv", "environ.Env"):
            yield node


def _enqueued() -> Iterator[tuple[str, str]]:
    """Yield (module, job) of every job that is enqueued by a name in the source."""
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and called_name(node) == "enqueue" and node.args:
                first = node.args[0]
                assert isinstance(first, ast.Constant), f"{module.name}:{node.lineno} names no job"
                yield module.name, str(first.value)


def test_every_job_that_is_enqueued_exists() -> None:
    celery.loader.import_default_modules()
    enqueued = list(_enqueued())

    assert enqueued
    assert [(module, job) for module, job in enqueued if job not in celery.tasks] == []


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX"])
def test_nothing_is_left_for_later(word: str) -> None:
    assert [module.name for module in modules() if word in module.path.read_text()] == []
